import { OpError } from '../../base/errors.ts';
import type { Info, Kind, Mount } from '../../snapshotters/snapshotter.ts';
import { containerd } from '../gen/wire.js';
import { labelsFromWire, labelsToWire } from './labels.ts';
import { timestampFromWire, timestampToWire } from './timestamps.ts';

type WireInfo = containerd.services.snapshots.v1.Info.$Properties;
type WireMount = containerd.types.Mount.$Properties;
type WireKind = containerd.services.snapshots.v1.Kind;

const { Kind: WireKinds } = containerd.services.snapshots.v1;

const KIND_TO_WIRE = {
  view: WireKinds.VIEW,
  active: WireKinds.ACTIVE,
  committed: WireKinds.COMMITTED,
} as const satisfies Record<Kind, WireKind>;

/** @throws OpError InvalidArgument */
function kindFromWire(kind: WireKind | null | undefined): Kind {
  if (kind === WireKinds.VIEW) return 'view';
  if (kind === WireKinds.ACTIVE) return 'active';
  if (kind === WireKinds.COMMITTED) return 'committed';
  throw new OpError('InvalidArgument', `snapshot kind ${kind ?? 'missing'}: use 1, 2 or 3`);
}

export function infoToWire(info: Info): WireInfo {
  return {
    name: info.name,
    parent: info.parent,
    kind: KIND_TO_WIRE[info.kind],
    createdAt: timestampToWire(info.createdAt),
    updatedAt: timestampToWire(info.updatedAt),
    labels: labelsToWire(info.labels),
  };
}

/** @throws OpError InvalidArgument without an info, or for its kind */
export function infoFromWire(info: WireInfo | null | undefined): Info {
  if (!info) throw new OpError('InvalidArgument', 'snapshot: the message has no info');
  return {
    name: info.name ?? '',
    parent: info.parent ?? '',
    kind: kindFromWire(info.kind),
    createdAt: timestampFromWire(info.createdAt),
    updatedAt: timestampFromWire(info.updatedAt),
    labels: labelsFromWire(info.labels ?? {}),
  };
}

export const mountsToWire = (mounts: readonly Mount[]): WireMount[] =>
  mounts.map(({ type, source, options }) => ({ type, source, options: [...options] }));

export const mountsFromWire = (mounts: readonly WireMount[]): Mount[] =>
  mounts.map(({ type, source, options }) => ({
    type: type ?? '',
    source: source ?? '',
    options: options ?? [],
  }));
