import type { DiskUsage, Identity, Place } from '../../disk/disk.ts';
import type { Node } from '../../gc/collectible.ts';
import type { Kind } from '../../snapshotters/snapshotter.ts';
import type { ballast } from '../gen/wire.js';

type WireUsage = ballast.v1.UsageResponse.$Properties;
type WireIdentity = ballast.v1.Identity.$Properties;
type WirePlace = ballast.v1.Place.$Properties;
type WireNode = ballast.v1.Keeper.$Properties;

export const usageToWire = (usage: DiskUsage): WireUsage => ({
  ...usage,
  roots: [...usage.roots],
  parts: [...usage.parts],
  owners: [...usage.owners],
  snapshots: usage.snapshots.map(({ type, namespace, key, ...facts }) => ({
    ...facts,
    snapshotter: type.slice(SNAPSHOTS.length),
    namespace,
    key,
  })),
});

export const usageFromWire = (usage: WireUsage): DiskUsage => ({
  roots: usage.roots ?? [],
  parts: (usage.parts ?? []).map((part) => ({
    type: part.type ?? '',
    count: part.count ?? 0,
    bytes: part.bytes ?? 0,
    unique: part.unique ?? 0,
    shared: part.shared ?? 0,
    unreferenced: part.unreferenced ?? 0,
  })),
  total: usage.total ?? 0,
  owners: (usage.owners ?? []).map((owner) => ({
    ...nodeFromWire(owner),
    unique: owner.unique ?? 0,
    shared: owner.shared ?? 0,
  })),
  snapshots: (usage.snapshots ?? []).map(({ snapshotter, namespace, key, ...facts }) => ({
    type: `${SNAPSHOTS}${snapshotter ?? ''}`,
    namespace: namespace ?? '',
    key: key ?? '',
    id: facts.id ?? '',
    kind: kindFromWire(facts.kind) || 'active',
    bytes: facts.bytes ?? 0,
    keepers: facts.keepers === 0 || facts.keepers === 1 ? facts.keepers : 2,
  })),
  namesUnknown: usage.namesUnknown ?? '',
});

export const identityToWire = (identity: Identity): WireIdentity => ({
  ...identity,
  namespaces: [...identity.namespaces],
  keptBy: [...identity.keptBy],
});

export const identityFromWire = (identity: WireIdentity): Identity => ({
  type: identity.type ?? '',
  namespaces: identity.namespaces ?? [],
  key: identity.key ?? '',
  id: identity.id ?? '',
  kind: kindFromWire(identity.kind),
  parent: identity.parent ?? '',
  diffId: identity.diffId ?? '',
  layer: identity.layer ?? '',
  keptBy: (identity.keptBy ?? []).map(nodeFromWire),
});

export const placeToWire = (place: Place): WirePlace => ({
  ...place,
  namespaces: [...place.namespaces],
  lowers: [...place.lowers],
});

export const placeFromWire = (place: WirePlace): Place => ({
  type: place.type ?? '',
  namespaces: place.namespaces ?? [],
  key: place.key ?? '',
  path: place.path ?? '',
  tree: place.tree ?? '',
  work: place.work ?? '',
  lowers: place.lowers ?? [],
});

const SNAPSHOTS = 'snapshots/';

const nodeFromWire = ({ type, namespace, key }: WireNode): Node => ({
  type: type ?? '',
  namespace: namespace ?? '',
  key: key ?? '',
});

function kindFromWire(kind: string | null | undefined): Kind | '' {
  return kind === 'active' || kind === 'view' || kind === 'committed' ? kind : '';
}
