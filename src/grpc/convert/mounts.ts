import type { Activation, ListedMount } from '../../mounts/mount.ts';
import type { containerd } from '../gen/wire.js';
import { labelsToWire } from './labels.ts';
import { timestampToWire } from './timestamps.ts';

type WireMount = containerd.types.Mount.$Properties;

export const listedMountFromWire = ({ type, source, target, options }: WireMount): ListedMount => ({
  type: type ?? '',
  source: source ?? '',
  target: target ?? '',
  options: options ?? [],
});

const listedMountToWire = ({ type, source, target, options }: ListedMount): WireMount => ({
  type,
  source,
  target,
  options: [...options],
});

export const activationToWire = ({
  name,
  active,
  system,
  labels,
}: Activation): containerd.types.ActivationInfo.$Properties => ({
  name,
  active: active.map((mount) => ({
    mount: listedMountToWire(mount),
    mountedAt: timestampToWire(mount.mountedAt),
    mountPoint: mount.mountPoint,
  })),
  system: system.map(listedMountToWire),
  labels: labelsToWire(labels),
});
