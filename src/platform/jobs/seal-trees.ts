import { quote } from '../../base/errors.ts';
import { fromSyncError } from '../linux/errno.ts';
import { close, O, open, syncfs } from '../linux/files.ts';
import type { TreeSize } from '../platform.ts';
import { never } from './cancellation.ts';
import { measureTree, type Budget } from './measure-tree.ts';
import { encodeError, type EncodedError } from './protocol.ts';

/** Larger trees are measured apart, so that the small ones of the group need not wait for them. */
const BUDGET: Budget = { entries: 1000, ms: 20 };

export interface SealRequest {
  readonly paths: readonly string[];
  /** To be flushed after the measuring; none: only measure. */
  readonly fileSystem: string | undefined;
}

export type Sealed = { readonly size: TreeSize } | { readonly error: EncodedError } | 'large';

/**
 * Measures each tree and flushes the file system once, so that all of them are on disk.
 * @throws SyncFailure
 */
export function sealTrees(request: SealRequest): readonly Sealed[] {
  const sealed = request.paths.map(measureSmall);
  if (request.fileSystem !== undefined) flushFileSystem(request.fileSystem);
  return sealed;
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
