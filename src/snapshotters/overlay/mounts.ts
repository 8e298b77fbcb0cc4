import { join } from 'node:path';
import { STAGED, type SnapshotNode } from '../driver.ts';
import type { Mount } from '../snapshotter.ts';
import type { IdMapping } from './id-mapping.ts';

export const upperOf = (folder: string, id: string): string => join(folder, id, 'fs');
export const workOf = (folder: string, id: string): string => join(folder, id, 'work');
export const stagedOf = (folder: string, id: string): string => join(folder, id, STAGED);

/** What all overlay mounts of a snapshot say. */
interface MountOptions {
  readonly overlay: readonly string[];
  readonly mapping: IdMapping | undefined;
  /** Its parent comes at Commit. */
  readonly isStaged: boolean;
}

/**
 * The mounts that containerd's overlay snapshotter answers for the same snapshot, to the order of
 * their options (CONTRACT section 4). A single layer is bind mounted; options for overlay are never
 * put on a bind mount. A snapshot whose parent comes at Commit has an overlay mount without lower directories. The
 * kernel mounts no such thing, but differs write into its upper directory, with overlay's whiteouts: into a bind
 * mount they would not write any (containerd 2.2, bindToOverlay in core/unpack/unpacker.go).
 */
export function overlayMounts(
  folder: string,
  node: SnapshotNode,
  { overlay, mapping, isStaged }: MountOptions,
): readonly Mount[] {
  const [nearest] = node.parentIds;
  const mapped =
    mapping === undefined ? [] : [`uidmap=${mapping.uidmap}`, `gidmap=${mapping.gidmap}`];
  const bind = (id: string, access: 'ro' | 'rw'): readonly Mount[] => [
    { type: 'bind', source: upperOf(folder, id), options: [...mapped, access, 'rbind'] },
  ];
  if (nearest === undefined && !isStaged) return bind(node.id, node.kind === 'view' ? 'ro' : 'rw');
  if (node.kind === 'view' && nearest !== undefined && node.parentIds.length === 1) {
    return bind(nearest, 'ro');
  }
  const own =
    node.kind === 'view'
      ? []
      : [`workdir=${workOf(folder, node.id)}`, `upperdir=${upperOf(folder, node.id)}`];
  const lowers = node.parentIds.map((id) => upperOf(folder, id)).join(':');
  const lower = isStaged ? [] : [`lowerdir=${lowers}`];
  return [
    { type: 'overlay', source: 'overlay', options: [...mapped, ...own, ...lower, ...overlay] },
  ];
}
