import { OpError } from '../../base/errors.ts';
import type { Any, Envelope, OwnEvent } from '../../events/event.ts';
import { containerd } from '../gen/wire.js';
import { anyFromWire, anyToWire } from './any.ts';
import { runtimeToWire } from './containers.ts';
import { labelsToWire } from './labels.ts';
import { timestampFromWire, timestampToWire } from './timestamps.ts';

type WireEnvelope = containerd.types.Envelope.$Properties;

const { events } = containerd;
const images = containerd.services.images.v1;

export const envelopeToWire = ({ timestamp, namespace, topic, event }: Envelope): WireEnvelope => ({
  timestamp: timestampToWire(timestamp),
  namespace,
  topic,
  event: anyToWire('type' in event ? encoded(event) : event),
});

/** @throws OpError InvalidArgument without an envelope or an event */
export function envelopeFromWire(envelope: WireEnvelope | null | undefined): Envelope {
  if (!envelope) throw new OpError('InvalidArgument', 'the request has no envelope');
  return {
    timestamp: timestampFromWire(envelope.timestamp),
    namespace: envelope.namespace ?? '',
    topic: envelope.topic ?? '',
    event: eventFromWire(envelope.event),
  };
}

/** An event may be empty, as Go's clients send none for one without fields. */
export const eventFromWire = (event: Parameters<typeof anyFromWire>[0]): Any =>
  anyFromWire(event) ?? { typeUrl: '', value: new Uint8Array() };

/** Those of containerd, whose fields filters may ask for; undefined for others, and for damaged ones. */
export function decodeEvent({ typeUrl, value }: Any): object | undefined {
  const name = typeUrl.slice(typeUrl.lastIndexOf('/') + 1);
  try {
    const decoded = CODECS.get(name)?.decode(value);
    if (decoded === undefined || !('labels' in decoded)) return decoded;
    return { ...decoded, labels: new Map(Object.entries(decoded.labels ?? {})) };
  } catch {
    return undefined;
  }
}

interface Codec {
  decode(bytes: Uint8Array): object;
}

const { ImageCreate, ImageUpdate, ImageDelete } = images;
const CODECS: ReadonlyMap<string, Codec> = new Map<string, Codec>([
  ...Object.entries(events).map(([name, codec]) => [`containerd.events.${name}`, codec] as const),
  ...Object.entries({ ImageCreate, ImageUpdate, ImageDelete }).map(
    ([name, codec]) => [`containerd.services.images.v1.${name}`, codec] as const,
  ),
]);

/** As clients of containerd decode it, by the name of its type. */
function encoded(event: OwnEvent): Any {
  switch (event.type) {
    case 'NamespaceCreate':
    case 'NamespaceUpdate': {
      const { name, labels } = event;
      const message = { name, labels: labelsToWire(labels) };
      return any(`containerd.events.${event.type}`, events[event.type].encode(message));
    }
    case 'NamespaceDelete':
      return any('containerd.events.NamespaceDelete', events.NamespaceDelete.encode(event));
    case 'ImageCreate':
    case 'ImageUpdate': {
      const { name, labels } = event;
      const message = { name, labels: labelsToWire(labels) };
      return any(`containerd.services.images.v1.${event.type}`, images[event.type].encode(message));
    }
    case 'ImageDelete':
      return any('containerd.services.images.v1.ImageDelete', images.ImageDelete.encode(event));
    case 'ContentCreate':
    case 'ContentDelete':
    case 'SnapshotPrepare':
    case 'SnapshotCommit':
    case 'SnapshotRemove':
    case 'ContainerDelete':
      return any(`containerd.events.${event.type}`, events[event.type].encode(event));
    case 'ContainerCreate': {
      const { id, image, runtime } = event;
      const message = { id, image, runtime: runtimeToWire(runtime) };
      return any('containerd.events.ContainerCreate', events.ContainerCreate.encode(message));
    }
    case 'ContainerUpdate': {
      const { id, image, labels, snapshotKey } = event;
      const message = { id, image, labels: labelsToWire(labels), snapshotKey };
      return any('containerd.events.ContainerUpdate', events.ContainerUpdate.encode(message));
    }
  }
}

const any = (typeUrl: string, writer: { finish(): Uint8Array }): Any => ({
  typeUrl,
  value: writer.finish(),
});
