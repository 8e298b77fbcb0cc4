import { quote } from '../../base/errors.ts';
import { fromSyncError } from '../linux/errno.ts';
import { close, O, open, syncfs } from '../linux/files.ts';
import type { TreeSize } from '../platform.ts';
import { never } from './cancellation.ts';
import { measureTree, type Budget } from './measure-tree.ts';
import { encodeError, type EncodedError } from './protocol.ts';
import { syncTree } from './sync-tree.ts';

/** The small trees of the group need not wait for larger ones. */
const BUDGET: Budget = { entries: 1000, ms: 20 };

/** Trees that together have no more inodes than this, nearly all directories, are synced one by one. */
const APART_INODES_MAX = 16;
const APART_FILES_MAX = 1;

export interface SealRequest {
  readonly paths: readonly string[];
  /** To be flushed after the measuring; none: only measure. Holds all the paths. */
  readonly fileSystem: string | undefined;
}

export type Sealed = { readonly size: TreeSize } | { readonly error: EncodedError } | 'large';

/**
 * Measures each tree and brings all of them to the disk together. Those found large are not measured, and
 * have to be flushed.
 * @throws SyncFailure
 */
export function sealTrees({ paths, fileSystem }: SealRequest): readonly Sealed[] {
  const sealed = paths.map(measureSmall);
  if (fileSystem === undefined) return sealed;
  if (!syncApart(paths, sealed, fileSystem)) flushFileSystem(fileSystem);
  return sealed;
}

/** @returns false when the file system has to be flushed after all */
function syncApart(
  paths: readonly string[],
  sealed: readonly Sealed[],
  fileSystem: string,
): boolean {
  const inodes = sealed.map((tree) =>
    typeof tree === 'object' && 'size' in tree ? tree.size.inodes : 0,
  );
  if (inodes.reduce((sum, count) => sum + count, 0) > APART_INODES_MAX) return false;
  const allowance = { files: APART_FILES_MAX };
  return paths.every((path, index) => inodes[index] === 0 || syncTree(path, fileSystem, allowance));
}

function measureSmall(path: string): Sealed {
  try {
    const size = measureTree(path, never, BUDGET);
    return size === undefined ? 'large' : { size };
  } catch (error) {
    return { error: encodeError(error) };
  }
}

/**
 * @throws SyncFailure; OpError ResourceExhausted, NotFound
 */
function flushFileSystem(path: string): void {
  try {
    const fd = open(path, O.RDONLY | O.DIRECTORY);
    try {
      syncfs(fd);
    } finally {
      close(fd);
    }
  } catch (error) {
    throw fromSyncError(error, `flushing the file system of ${quote(path)}`);
  }
}
