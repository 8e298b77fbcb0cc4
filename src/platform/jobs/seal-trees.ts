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
  /** To be flushed before the measuring; none: only measure. Holds all the paths. */
  readonly fileSystem: string | undefined;
}

export type Sealed = { readonly size: TreeSize } | { readonly error: EncodedError } | 'large';

/**
 * Brings all trees to the disk together, and measures each then: what a file has allocated is final only when
 * it was written out. Those found large are not measured.
 * @throws SyncFailure
 */
export function sealTrees({ paths, fileSystem }: SealRequest): readonly Sealed[] {
  if (fileSystem !== undefined && !syncApart(paths, fileSystem)) flushFileSystem(fileSystem);
  return paths.map(measureSmall);
}

/** @returns false when the file system has to be flushed after all */
function syncApart(paths: readonly string[], fileSystem: string): boolean {
  const filled: string[] = [];
  let left = APART_INODES_MAX;
  for (const path of paths) {
    const inodes = inodesOf(path);
    if (inodes === undefined || inodes > left) return false;
    left -= inodes;
    if (inodes > 0) filled.push(path);
  }
  const allowance = { files: APART_FILES_MAX };
  return filled.every((path) => syncTree(path, fileSystem, allowance));
}

/** 0 where it can't be measured, which is told later; undefined for more than may be synced one by one. */
function inodesOf(path: string): number | undefined {
  try {
    return measureTree(path, never, { ...BUDGET, entries: APART_INODES_MAX })?.inodes;
  } catch {
    return 0;
  }
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
