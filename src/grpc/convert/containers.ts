import { OpError } from '../../base/errors.ts';
import type { Container, ContainerDraft } from '../../containers/container.ts';
import type { Any } from '../../events/event.ts';
import type { containerd, google } from '../gen/wire.js';
import { anyFromWire, anyToWire } from './any.ts';
import { labelsFromWire, labelsToWire } from './labels.ts';
import { timestampToWire } from './timestamps.ts';

type WireContainer = containerd.services.containers.v1.Container.$Properties;

export function containerToWire(container: Container): WireContainer {
  const { id, labels, image, runtime, spec, snapshotter, snapshotKey, sandbox } = container;
  // Without a prototype, `__proto__` is a key like any other.
  const extensions: { [name: string]: google.protobuf.Any.$Properties } = Object.create(null);
  for (const [name, value] of container.extensions) extensions[name] = anyToWire(value);
  return {
    id,
    labels: labelsToWire(labels),
    image,
    runtime: runtimeToWire(runtime),
    spec: spec === undefined ? null : anyToWire(spec),
    snapshotter,
    snapshotKey,
    extensions,
    sandbox,
    createdAt: timestampToWire(container.createdAt),
    updatedAt: timestampToWire(container.updatedAt),
  };
}

export const runtimeToWire = ({
  name,
  options,
}: Container['runtime']): containerd.services.containers.v1.Container.Runtime.$Properties => ({
  name,
  options: options === undefined ? null : anyToWire(options),
});

/** @throws OpError InvalidArgument without a container */
export function containerFromWire(container: WireContainer | null | undefined): ContainerDraft {
  if (!container) throw new OpError('InvalidArgument', 'the request has no container');
  const extensions = new Map<string, Any>();
  for (const [name, value] of Object.entries(container.extensions ?? {})) {
    const any = anyFromWire(value);
    if (any !== undefined) extensions.set(name, any);
  }
  return {
    id: container.id ?? '',
    labels: labelsFromWire(container.labels ?? {}),
    image: container.image ?? '',
    runtime: {
      name: container.runtime?.name ?? '',
      options: anyFromWire(container.runtime?.options),
    },
    spec: anyFromWire(container.spec),
    snapshotter: container.snapshotter ?? '',
    snapshotKey: container.snapshotKey ?? '',
    extensions,
    sandbox: container.sandbox ?? '',
  };
}
