import * as grpc from '@grpc/grpc-js';
import type { RequestContext } from '../../base/context.ts';
import { OpError } from '../../base/errors.ts';
import { MESSAGE_BYTES_MAX } from '../limits.ts';
import { errorOf } from '../status.ts';

/** What a generated codec can do, as clients need it. */
export interface Encoder<Properties> {
  encode(message: Properties): { finish(): Uint8Array };
}
export interface Decoder<Message> {
  decode(bytes: Uint8Array): Message;
}

/** One method of one service. */
export interface Rpc<Request, Response> {
  /** As `/containerd.services.version.v1.Version/Version`. */
  readonly path: string;
  readonly request: Encoder<Request>;
  readonly response: Decoder<Response>;
}

const CHANNEL_OPTIONS: grpc.ChannelOptions = {
  'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
  'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
  'grpc-node.flow_control_window': 8 << 20,
  'grpc.enable_channelz': 0,
  // Retries would keep a copy of what was sent, and none of our calls may be repeated blindly.
  'grpc.enable_retries': 0,
  'grpc.use_local_subchannel_pool': 1,
  // A daemon that restarts is back within a second.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
};

/** Calls over one connection, which is made when the first one needs it, and again after a loss. */
export class Calls implements Disposable {
  readonly #client: grpc.Client;

  /** @param address as `unix:///run/ballast/plugin.sock`, or the path alone */
  constructor(address: string) {
    const target = address.startsWith('/') ? `unix:${address}` : address;
    this.#client = new grpc.Client(target, grpc.credentials.createInsecure(), CHANNEL_OPTIONS);
  }

  /** @throws OpError as the server answered; Unavailable when there is none; Canceled by `ctx.signal` */
  unary<Request, Response>(
    ctx: RequestContext,
    rpc: Rpc<Request, Response>,
    request: Request,
  ): Promise<Response> {
    const { promise, resolve, reject } = Promise.withResolvers<Response>();
    const call = this.#client.makeUnaryRequest(
      rpc.path,
      encodeWith(rpc.request),
      decodeWith(rpc.response),
      request,
      metadataOf(ctx),
      (error, response) => {
        ctx.signal.removeEventListener('abort', cancel);
        if (error !== null) reject(errorOf(error.code, reasonOf(error.details)));
        else if (response === undefined) reject(new OpError('Internal', `${rpc.path}: no answer`));
        else resolve(response);
      },
    );
    const cancel = (): void => call.cancel();
    cancelOnAbort(ctx, cancel);
    return promise;
  }

  /** Ending the iteration early cancels the call. @throws as `unary` */
  async *serverStream<Request, Response>(
    ctx: RequestContext,
    rpc: Rpc<Request, Response>,
    request: Request,
  ): AsyncIterable<Response> {
    const call = this.#client.makeServerStreamRequest(
      rpc.path,
      encodeWith(rpc.request),
      decodeWith(rpc.response),
      request,
      metadataOf(ctx),
    );
    const cancel = (): void => call.cancel();
    cancelOnAbort(ctx, cancel);
    try {
      for await (const response of call) yield response;
    } catch (error) {
      throw isServiceError(error) ? errorOf(error.code, reasonOf(error.details)) : error;
    } finally {
      ctx.signal.removeEventListener('abort', cancel);
      call.cancel();
    }
  }

  bidi<Request, Response>(
    ctx: RequestContext,
    rpc: Rpc<Request, Response>,
  ): Exchange<Request, Response> {
    const call = this.#client.makeBidiStreamRequest(
      rpc.path,
      encodeWith(rpc.request),
      decodeWith(rpc.response),
      metadataOf(ctx),
    );
    const exchange = new Exchange(call);
    const cancel = (): void => call.cancel();
    cancelOnAbort(ctx, cancel);
    call.once('status', () => ctx.signal.removeEventListener('abort', cancel));
    return exchange;
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

/** A bidi stream with one answer per request. */
export class Exchange<Request, Response> {
  readonly #call: grpc.ClientDuplexStream<Request, Response>;
  readonly #waiting: PromiseWithResolvers<Response>[] = [];
  readonly #ended = Promise.withResolvers<void>();
  #end: OpError | undefined;

  constructor(call: grpc.ClientDuplexStream<Request, Response>) {
    this.#call = call;
    call.on('data', (response: Response) => this.#waiting.shift()?.resolve(response));
    call.on('error', () => undefined);
    call.on('status', ({ code, details }: grpc.StatusObject) => {
      const ok = code === grpc.status.OK;
      const end = ok
        ? new OpError('FailedPrecondition', 'the stream has ended')
        : errorOf(code, reasonOf(details));
      // After success the last answers may still be on their way to the listener above.
      if (ok && !call.readableEnded) call.once('end', () => this.#settle(end));
      else this.#settle(end);
    });
  }

  /** @throws OpError as the server ended the stream */
  send(request: Request): Promise<Response> {
    if (this.#end !== undefined) return Promise.reject(this.#end);
    const waiting = Promise.withResolvers<Response>();
    this.#waiting.push(waiting);
    this.#call.write(request);
    return waiting.promise;
  }

  /** Half-closes, and resolves when the server has ended the stream, however it did. */
  async finish(): Promise<void> {
    this.#call.end();
    await this.#ended.promise;
  }

  #settle(end: OpError): void {
    this.#end = end;
    for (const waiting of this.#waiting.splice(0)) waiting.reject(end);
    this.#ended.resolve();
  }
}

function cancelOnAbort(ctx: RequestContext, cancel: () => void): void {
  if (ctx.signal.aborted) cancel();
  else ctx.signal.addEventListener('abort', cancel);
}

function metadataOf({ namespace, leaseId }: RequestContext): grpc.Metadata {
  const metadata = new grpc.Metadata();
  if (namespace !== undefined) metadata.set('containerd-namespace', namespace);
  if (leaseId !== undefined) metadata.set('containerd-lease', leaseId);
  return metadata;
}

function encodeWith<Request>(codec: Encoder<Request>): (message: Request) => Buffer {
  return (message) => {
    const bytes = codec.encode(message).finish();
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
}

function decodeWith<Response>(codec: Decoder<Response>): (bytes: Buffer) => Response {
  return (bytes) => codec.decode(bytes);
}

/** grpc-js wraps the one thing that matters into two sentences of its own. */
const reasonOf = (details: string): string =>
  details.startsWith('No connection established')
    ? details.replace(/^.*Last error: (?:Error: )?| ?Resolution note: *$/g, '').replace(/\.$/, '')
    : details;

function isServiceError(error: unknown): error is grpc.ServiceError {
  return (
    error instanceof Error &&
    'code' in error &&
    typeof error.code === 'number' &&
    'details' in error &&
    typeof error.details === 'string'
  );
}
