import type { RequestContext } from '../base/context.ts';
import { messageOf, OpError } from '../base/errors.ts';

/**
 * What a transport serves: bytes in, bytes out. Services are written with the three makers below and
 * know nothing of the transport, so that another can take its place.
 */
export interface Service {
  /** Full name, as `containerd.services.content.v1.Content`. */
  readonly name: string;
  readonly methods: Readonly<Record<string, Method>>;
}

/**
 * One message: its bytes, whose memory becomes the transport's, or parts, which are not copied and must
 * stay as they are until the stream asks its handler for the next message.
 */
export type Message = Uint8Array | readonly Uint8Array[];

export type Method = UnaryMethod | ServerStreamMethod | BidiMethod;

export interface UnaryMethod {
  readonly kind: 'unary';
  handle(ctx: RequestContext, request: Uint8Array): Promise<Message>;
}

/**
 * The transport takes a response only when the client has room for it, and calls `return` when the
 * client is gone: a handler frees what it holds in its `finally`. One that waits for something else
 * than its own work must also listen to `ctx.signal`.
 */
export interface ServerStreamMethod {
  readonly kind: 'serverStream';
  handle(ctx: RequestContext, request: Uint8Array): AsyncIterable<Message>;
}

/**
 * Requests come one at a time, as the handler asks for them. When the client has half-closed they end;
 * when it is gone they end or asking fails with Canceled. The status is sent after the handler's
 * `finally`. The memory of a request is the handler's.
 */
export interface BidiMethod {
  readonly kind: 'bidi';
  handle(ctx: RequestContext, requests: AsyncIterable<Uint8Array>): AsyncIterable<Message>;
}

/** What a generated codec can do. */
export interface RequestCodec<Message> {
  decode(bytes: Uint8Array): Message;
}
export interface ResponseCodec<Properties> {
  encode(message: Properties): { finish(): Message };
}

export function unary<Request, Response>(
  request: RequestCodec<Request>,
  response: ResponseCodec<Response>,
  handle: (ctx: RequestContext, request: Request) => Promise<Response>,
): UnaryMethod {
  return {
    kind: 'unary',
    handle: async (ctx, bytes) =>
      response.encode(await handle(ctx, decode(request, bytes))).finish(),
  };
}

export function serverStream<Request, Response>(
  request: RequestCodec<Request>,
  response: ResponseCodec<Response>,
  handle: (ctx: RequestContext, request: Request) => AsyncIterable<Response>,
): ServerStreamMethod {
  return {
    kind: 'serverStream',
    handle: (ctx, bytes) =>
      new Mapped(handle(ctx, decode(request, bytes)), (message) =>
        response.encode(message).finish(),
      ),
  };
}

export function bidi<Request, Response>(
  request: RequestCodec<Request>,
  response: ResponseCodec<Response>,
  handle: (ctx: RequestContext, requests: AsyncIterable<Request>) => AsyncIterable<Response>,
): BidiMethod {
  return {
    kind: 'bidi',
    handle: (ctx, requests) =>
      new Mapped(handle(ctx, new Mapped(requests, (bytes) => decode(request, bytes))), (message) =>
        response.encode(message).finish(),
      ),
  };
}

function decode<Message>(codec: RequestCodec<Message>, bytes: Uint8Array): Message {
  try {
    return codec.decode(bytes);
  } catch (error) {
    throw new OpError('InvalidArgument', `the request is malformed: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** An iterable with each value mapped; an async generator would cost three more turns per value. */
class Mapped<From, To> implements AsyncIterable<To>, AsyncIterator<To> {
  readonly #source: AsyncIterable<From>;
  readonly #map: (value: From) => To;
  #iterator: AsyncIterator<From> | undefined;

  constructor(source: AsyncIterable<From>, map: (value: From) => To) {
    this.#source = source;
    this.#map = map;
  }

  [Symbol.asyncIterator](): AsyncIterator<To> {
    this.#iterator = this.#source[Symbol.asyncIterator]();
    return this;
  }

  async next(): Promise<IteratorResult<To>> {
    const result = await this.#started().next();
    return result.done === true
      ? { done: true, value: undefined }
      : { done: false, value: this.#map(result.value) };
  }

  async return(): Promise<IteratorResult<To>> {
    await this.#started().return?.();
    return { done: true, value: undefined };
  }

  #started(): AsyncIterator<From> {
    return (this.#iterator ??= this.#source[Symbol.asyncIterator]());
  }
}
