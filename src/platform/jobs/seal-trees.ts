import { quote } from '../../base/errors.ts';
import { fromSyncError, fromSystemError } from '../linux/errno.ts';
import { close, O, open, openDirectory, Stat, syncfs } from '../linux/files.ts';
import type { SealedTree, TreeToSeal } from '../platform.ts';
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
  readonly trees: readonly TreeToSeal[];
  /** To be flushed before the measuring; none: only measure. Holds all the trees. */
  readonly fileSystem: string | undefined;
}

export type Sealed = SealedTree | { readonly error: EncodedError } | 'large';

/**
 * Brings all trees to the disk together, and measures each then: what a file has allocated is final only when
 * it was written out. Those found large are not measured, nor those whose count is known, but for the smallest, which are
 * looked at anyway.
 * @throws SyncFailure
 */
export function sealTrees({ trees, fileSystem }: SealRequest): readonly Sealed[] {
  if (fileSystem !== undefined && !syncApart(trees, fileSystem)) flushFileSystem(fileSystem);
  return trees.map(sealed);
}

/** @returns false when the file system has to be flushed after all */
function syncApart(trees: readonly TreeToSeal[], fileSystem: string): boolean {
  if (trees.some(isCounted)) return false;
  const filled: string[] = [];
  let left = APART_INODES_MAX;
  for (const { path } of trees) {
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

type CountedTree = TreeToSeal & { readonly counted: NonNullable<TreeToSeal['counted']> };

/** Small ones were looked at for the sync, so there it is as good to measure them. */
const isCounted = (tree: TreeToSeal): tree is CountedTree =>
  tree.counted !== undefined && tree.counted.inodes > APART_INODES_MAX;

function sealed(tree: TreeToSeal): Sealed {
  try {
    if (isCounted(tree)) return { ...tree.counted, ...ownerOf(tree.path), isCounted: true };
    const size = measureTree(tree.path, never, BUDGET);
    return size === undefined ? 'large' : { ...size, isCounted: false };
  } catch (error) {
    return { error: encodeError(error) };
  }
}

/** @throws OpError NotFound */
function ownerOf(path: string): { readonly uid: number; readonly gid: number } {
  try {
    const fd = openDirectory(path);
    try {
      const { uid, gid } = new Stat().readOpen(fd);
      return { uid, gid };
    } finally {
      close(fd);
    }
  } catch (error) {
    throw fromSystemError(error, `looking at ${quote(path)}`);
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
