import { join } from 'node:path';
import type { SnapshotNode } from '../driver.ts';
import type { Mount } from '../snapshotter.ts';
import type { IdMapping } from './id-mapping.ts';

export const upperOf = (folder: string, id: string): string => join(folder, id, 'fs');
export const workOf = (folder: string, id: string): string => join(folder, id, 'work');

/**
 * The mounts that containerd's overlay snapshotter answers for the same snapshot, to the order of
 * their options (CONTRACT section 4). A single layer is bind mounted; options for overlay are never
 * put on a bind mount.
 */
export function overlayMounts(
  folder: string,
  node: SnapshotNode,
  overlayOptions: readonly string[],
  mapping: IdMapping | undefined,
): readonly Mount[] {
  const [nearest] = node.parentIds;
  const mapped =
    mapping === undefined ? [] : [`uidmap=${mapping.uidmap}`, `gidmap=${mapping.gidmap}`];
  const bind = (id: string, access: 'ro' | 'rw'): readonly Mount[] => [
    { type: 'bind', source: upperOf(folder, id), options: [...mapped, access, 'rbind'] },
  ];
  if (nearest === undefined) return bind(node.id, node.kind === 'view' ? 'ro' : 'rw');
  if (node.kind === 'view' && node.parentIds.length === 1) return bind(nearest, 'ro');
  const own =
    node.kind === 'view'
      ? []
      : [`workdir=${workOf(folder, node.id)}`, `upperdir=${upperOf(folder, node.id)}`];
  const lower = node.parentIds.map((id) => upperOf(folder, id)).join(':');
  return [
    {
      type: 'overlay',
      source: 'overlay',
      options: [...mapped, ...own, `lowerdir=${lower}`, ...overlayOptions],
    },
  ];
}
