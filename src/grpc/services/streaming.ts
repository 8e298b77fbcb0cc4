import type { RequestContext } from '../../base/context.ts';
import { messageOf, OpError, quote } from '../../base/errors.ts';
import type { Any } from '../../events/event.ts';
import type { Stream, StreamRegistry } from '../../streams/stream.ts';
import { anyToWire } from '../convert/any.ts';
import { containerd, google } from '../gen/wire.js';
import { bidi } from '../service.ts';
import type { Service } from '../service.ts';

type WireAny = google.protobuf.Any.$Properties;

const { StreamInit } = containerd.services.streaming.v1;
const ACKNOWLEDGED: Any = { typeUrl: 'google.protobuf.Empty', value: new Uint8Array(0) };

export function streamingService(streams: StreamRegistry): Service {
  return {
    name: 'containerd.services.streaming.v1.Streaming',
    methods: {
      Stream: bidi(google.protobuf.Any, google.protobuf.Any, (ctx, requests) =>
        serve(streams, ctx, requests),
      ),
    },
  };
}

/** The call lasts until whoever serves the stream closes it, or the client is gone. */
async function* serve(
  streams: StreamRegistry,
  ctx: RequestContext,
  requests: AsyncIterable<WireAny>,
): AsyncIterable<WireAny> {
  const incoming = requests[Symbol.asyncIterator]();
  const first = await incoming.next();
  if (first.done === true) {
    throw new OpError('InvalidArgument', 'the stream has no first message, a StreamInit');
  }
  const name = nameOf(first.value);
  using stream = new ClientStream(incoming);
  using _registered = streams.register(ctx, name, stream);
  const leave = (): void => stream.close();
  ctx.signal.addEventListener('abort', leave);
  try {
    yield anyToWire(ACKNOWLEDGED);
    for await (const message of stream.outgoing()) yield anyToWire(message);
  } finally {
    ctx.signal.removeEventListener('abort', leave);
  }
}

/** @throws OpError InvalidArgument */
function nameOf({ type_url: typeUrl, value }: WireAny): string {
  if (!/(^|\/)containerd\.services\.streaming\.v1\.StreamInit$/.test(typeUrl ?? '')) {
    throw new OpError(
      'InvalidArgument',
      `the first message of a stream is a StreamInit, not ${quote(typeUrl ?? '')}`,
    );
  }
  try {
    return StreamInit.decode(value ?? new Uint8Array(0)).id;
  } catch (error) {
    throw new OpError('InvalidArgument', `the StreamInit is malformed: ${messageOf(error)}`);
  }
}

interface Waiting {
  readonly message: Any;
  readonly taken: PromiseWithResolvers<void>;
}

/** The server's end: messages wait here until the transport asks for them. */
class ClientStream implements Stream, Disposable {
  readonly #incoming: AsyncIterator<WireAny>;
  readonly #outgoing: Waiting[] = [];
  #wake: (() => void) | undefined;
  readonly #receivers = new Set<PromiseWithResolvers<Any | undefined>>();
  /** Receivers take turns: the transport has one at a time. */
  #turn: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  constructor(incoming: AsyncIterator<WireAny>) {
    this.#incoming = incoming;
  }

  send(message: Any): Promise<void> {
    if (this.#isClosed) return Promise.reject(ended());
    const taken = Promise.withResolvers<void>();
    this.#outgoing.push({ message, taken });
    this.#wake?.();
    return taken.promise;
  }

  receive(): Promise<Any | undefined> {
    if (this.#isClosed) return Promise.reject(ended());
    const receiver = Promise.withResolvers<Any | undefined>();
    this.#receivers.add(receiver);
    this.#turn = this.#turn.then(async () => {
      try {
        const { done, value } = await this.#incoming.next();
        receiver.resolve(done === true ? undefined : anyOf(value));
      } catch (error) {
        receiver.reject(error);
      }
      this.#receivers.delete(receiver);
    });
    return receiver.promise;
  }

  close(): void {
    this.#isClosed = true;
    for (const { reject } of this.#receivers) reject(ended());
    this.#receivers.clear();
    this.#wake?.();
  }

  async *outgoing(): AsyncIterable<Any> {
    for (;;) {
      const next = this.#outgoing[0];
      if (next !== undefined) {
        yield next.message;
        this.#outgoing.shift();
        next.taken.resolve();
      } else if (this.#isClosed) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  [Symbol.dispose](): void {
    this.close();
    for (const { taken } of this.#outgoing.splice(0)) taken.reject(ended());
  }
}

/** The memory of a request is ours. */
const anyOf = ({ type_url: typeUrl, value }: WireAny): Any => ({
  typeUrl: typeUrl ?? '',
  value: value ?? new Uint8Array(0),
});

const ended = (): OpError => new OpError('Canceled', 'the stream has ended');
