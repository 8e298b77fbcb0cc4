import { OpError, quote } from '../../base/errors.ts';
import type { Labels } from '../../base/labels.ts';

export const UID_MAPPING = 'containerd.io/snapshot/uidmapping';
export const GID_MAPPING = 'containerd.io/snapshot/gidmapping';

/** Host ids that a container's root is mapped to, and the mappings as mount options want them. */
export interface IdMapping {
  readonly uid: number;
  readonly gid: number;
  readonly uidmap: string;
  readonly gidmap: string;
}

/** A mapping that changes nothing, for the half that a client leaves out. */
const IDENTITY = '0:0:4294967295';

/**
 * The id mapping that the labels ask for: `container:host:length[,…]` each.
 * @throws OpError InvalidArgument malformed, or root (id 0) is not mapped
 */
export function idMapping(labels: Labels): IdMapping | undefined {
  const uidmap = labels.get(UID_MAPPING);
  const gidmap = labels.get(GID_MAPPING);
  if (uidmap === undefined && gidmap === undefined) return undefined;
  return {
    uid: mappedRoot(UID_MAPPING, uidmap ?? IDENTITY),
    gid: mappedRoot(GID_MAPPING, gidmap ?? IDENTITY),
    uidmap: uidmap ?? IDENTITY,
    gidmap: gidmap ?? IDENTITY,
  };
}

function mappedRoot(label: string, mapping: string): number {
  let root: number | undefined;
  for (const part of mapping.split(',')) {
    const match = /^(\d{1,10}):(\d{1,10}):(\d{1,10})$/.exec(part);
    if (match === null) {
      throw new OpError(
        'InvalidArgument',
        `label ${label}=${quote(mapping)}: expected container:host:length[,...]`,
      );
    }
    const [container, host, length] = match.slice(1).map(Number);
    if (container === 0 && (length ?? 0) > 0) root ??= host;
  }
  if (root === undefined) {
    throw new OpError(
      'InvalidArgument',
      `label ${label}=${quote(mapping)}: does not map root (id 0)`,
    );
  }
  return root;
}
