import type { RequestContext } from '../../base/context.ts';
import type { EventExchange } from '../../events/event.ts';
import { envelopeFromWire, envelopeToWire, eventFromWire } from '../convert/events.ts';
import { containerd, google } from '../gen/wire.js';
import { serverStream, unary } from '../service.ts';
import type { Service } from '../service.ts';

const v1 = containerd.services.events.v1;
const { Envelope } = containerd.types;
const { Empty } = google.protobuf;

export function eventsService(events: EventExchange): Service {
  return {
    name: 'containerd.services.events.v1.Events',
    methods: {
      Publish: unary(v1.PublishRequest, Empty, async (ctx, { topic, event }) => {
        await events.send(ctx, topic, eventFromWire(event));
        return {};
      }),
      Forward: unary(v1.ForwardRequest, Empty, async (_ctx, { envelope }) => {
        await events.forward(envelopeFromWire(envelope));
        return {};
      }),
      Subscribe: serverStream(v1.SubscribeRequest, Envelope, (ctx, { filters }) =>
        subscribed(events, ctx, filters),
      ),
    },
  };
}

async function* subscribed(
  events: EventExchange,
  ctx: RequestContext,
  filters: readonly string[],
): AsyncIterable<containerd.types.Envelope.$Properties> {
  for await (const envelope of events.subscribe(ctx, filters)) yield envelopeToWire(envelope);
}
