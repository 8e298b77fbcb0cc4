import {
  getSubvolInfo,
  KEY,
  LAST_OBJECT,
  MAX_U64,
  SUBVOLUME_ROOT,
  treeSearch,
} from '../../linux/btrfs.ts';
import type { Cancellation } from '../cancellation.ts';

/** What differs between a subvolume and the read-only one that it began as, by inode number. */
export interface ChangedInodes {
  /**
   * Made or changed since: contents, attributes, or the set of its names. What is not among them has
   * the same names in the same directories as before.
   */
  readonly changed: ReadonlySet<number>;
  /** The directories that lead to them. */
  readonly above: ReadonlySet<number>;
}

/** struct btrfs_inode_item: the transaction that last wrote it. */
const INODE_TRANSACTION = 8;

/**
 * Finds them in the subvolume's tree, at a cost that grows with what was changed and not with what is
 * there: leaves that are still shared with the base are passed over. Only what was committed counts, so
 * the caller syncs first.
 * @returns undefined when there are more than `atMost`
 */
export function changedInodes(
  root: number,
  base: number,
  cancellation: Cancellation,
  atMost: number,
): ChangedInodes | undefined {
  const tree = getSubvolInfo(root).id;
  const since = getSubvolInfo(base).madeAt;
  const changed = new Set<number>();
  const everything = {
    tree,
    from: [BigInt(SUBVOLUME_ROOT), 0, 0n],
    to: [LAST_OBJECT, 255, MAX_U64],
    sinceTransaction: since + 1,
  } as const;
  treeSearch(root, everything, ({ object, type, data }) => {
    cancellation.check();
    if (type === KEY.inodeItem && data.number(INODE_TRANSACTION) > since) {
      changed.add(Number(object));
    }
    return changed.size <= atMost;
  });
  if (changed.size > atMost) return undefined;
  return { changed, above: directoriesAbove(root, tree, changed, cancellation) };
}

function directoriesAbove(
  root: number,
  tree: number,
  inodes: ReadonlySet<number>,
  cancellation: Cancellation,
): ReadonlySet<number> {
  const above = new Set<number>();
  const pending = [...inodes];
  for (let inode = pending.pop(); inode !== undefined; inode = pending.pop()) {
    cancellation.check();
    for (const parent of parentsOf(root, tree, inode)) {
      if (above.has(parent)) continue;
      above.add(parent);
      if (!inodes.has(parent)) pending.push(parent);
    }
  }
  return above;
}

/** A file may have names in several directories; the root's parent is itself. */
function parentsOf(root: number, tree: number, inode: number): readonly number[] {
  const parents: number[] = [];
  const object = BigInt(inode);
  const names = {
    tree,
    from: [object, KEY.inodeRef, 0n],
    to: [object, KEY.inodeExtref, MAX_U64],
  } as const;
  treeSearch(root, names, ({ type, offset, data }) => {
    parents.push(type === KEY.inodeRef ? Number(offset) : data.number(0));
  });
  return parents;
}
