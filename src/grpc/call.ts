import type { RequestContext } from '../base/context.ts';
import { OpError } from '../base/errors.ts';
import { MESSAGE_BYTES_MAX } from './limits.ts';
import type { BidiMethod, Message, Method, ServerStreamMethod, UnaryMethod } from './service.ts';
import { OK, statusOf } from './status.ts';
import type { CallStatus } from './status.ts';

/** Answers that the client has not taken yet; at this many bytes a stream's handler waits. */
const UNSENT_BYTES_MAX = 1 << 20;

/** What a call needs of its transport. */
export interface Wire {
  /** One message, or the half-close, is reported after this. */
  startRead(): void;
  /**
   * `sent` is called when the message has left and its memory is free again, and maybe never if the
   * call is cancelled first.
   */
  sendMessage(message: Message, sent: () => void): void;
  /** Ends the call, once all messages are out. */
  sendStatus(status: CallStatus): void;
}

interface Headers {
  /** Lower case. Several values are joined with ", ". */
  get(name: string): string | undefined;
}

/** For whoever logs calls. */
export interface EndedCall {
  /** `/SERVICE/METHOD` */
  readonly path: string;
  readonly status: CallStatus;
  /** From its headers to its end. */
  readonly ms: number;
}

export interface CallOwner {
  callStarted(): void;
  /** @param beganMs on the monotonic clock */
  callEnded(path: string, status: CallStatus, beganMs: number): void;
  callFailed(error: unknown, path: string): void;
}

export type { Message };

/** What the transport tells a call. `onCancel` comes for every end, also after the status. */
export interface CallListener {
  onReceiveHeaders(headers: Headers): void;
  onReceiveMessage(message: Buffer): void;
  onReceiveHalfClose(): void;
  onCancel(): void;
}

export function makeCall(path: string, method: Method, wire: Wire, owner: CallOwner): CallListener {
  switch (method.kind) {
    case 'unary':
      return new UnaryCall(path, method, wire, owner);
    case 'serverStream':
      return new ServerStreamCall(path, method, wire, owner);
    case 'bidi':
      return new BidiCall(path, method, wire, owner);
  }
}

/** Most requests never look at their signal or headers: both are made when asked for. */
class CallContext implements RequestContext {
  readonly #headers: Headers;
  #controller: AbortController | undefined;
  #aborted = false;

  constructor(headers: Headers) {
    this.#headers = headers;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  get namespace(): string | undefined {
    return firstValue(this.#headers.get('containerd-namespace'));
  }

  get leaseId(): string | undefined {
    return firstValue(this.#headers.get('containerd-lease'));
  }

  abort(): void {
    this.#aborted = true;
    this.#controller?.abort();
  }
}

/** Node joins a header that came several times with ", "; the first is the one that Go would take. */
const firstValue = (value: string | undefined): string | undefined => value?.split(', ', 1)[0];

abstract class Call<M extends Method> implements CallListener {
  protected readonly method: M;
  protected readonly wire: Wire;
  protected cancelled = false;
  readonly #path: string;
  readonly #owner: CallOwner;
  #ctx: CallContext | undefined;
  #beganMs = 0;
  #ended = false;

  constructor(path: string, method: M, wire: Wire, owner: CallOwner) {
    this.#path = path;
    this.method = method;
    this.wire = wire;
    this.#owner = owner;
  }

  onReceiveHeaders(headers: Headers): void {
    this.#ctx = new CallContext(headers);
    this.#beganMs = performance.now();
    this.#owner.callStarted();
    this.begin(this.#ctx);
  }

  abstract onReceiveMessage(message: Buffer): void;
  abstract onReceiveHalfClose(): void;

  onCancel(): void {
    if (this.#ended || this.cancelled) return;
    this.cancelled = true;
    this.#ctx?.abort();
    this.abandon();
  }

  protected abstract begin(ctx: CallContext): void;
  /** The client is gone: nothing more comes or goes. */
  protected abstract abandon(): void;

  protected succeed(): void {
    this.#end(OK);
  }

  protected fail(error: unknown): void {
    this.#end(
      statusOf(error, this.cancelled, (defect) => this.#owner.callFailed(defect, this.#path)),
    );
  }

  #end(status: CallStatus): void {
    if (this.#ended) return;
    this.#ended = true;
    if (!this.cancelled) this.wire.sendStatus(status);
    this.#owner.callEnded(this.#path, status, this.#beganMs);
  }
}

/** One request, which is handled as soon as it is there, whether or not the client has half-closed. */
abstract class OneRequestCall<M extends Method> extends Call<M> {
  #ctx: CallContext | undefined;
  #running = false;

  protected begin(ctx: CallContext): void {
    this.#ctx = ctx;
    this.wire.startRead();
  }

  onReceiveMessage(message: Buffer): void {
    if (this.#running || this.#ctx === undefined) return;
    this.#running = true;
    void this.run(this.#ctx, message);
  }

  onReceiveHalfClose(): void {
    if (!this.#running) this.fail(new OpError('InvalidArgument', 'the call has no request'));
  }

  /** Settles after it has ended the call. */
  protected abstract run(ctx: CallContext, request: Buffer): Promise<void>;

  protected abandon(): void {
    if (!this.#running) this.fail(new OpError('Canceled', 'the request was cancelled'));
  }
}

class UnaryCall extends OneRequestCall<UnaryMethod> {
  protected async run(ctx: CallContext, request: Buffer): Promise<void> {
    try {
      const response = await this.method.handle(ctx, request);
      // The status is queued behind the message, so that both leave together.
      if (!this.cancelled) this.wire.sendMessage(checked(response), nothing);
      this.succeed();
    } catch (error) {
      this.fail(error);
    }
  }
}

class ServerStreamCall extends OneRequestCall<ServerStreamMethod> {
  readonly #responses = new Responses(this.wire);

  protected async run(ctx: CallContext, request: Buffer): Promise<void> {
    try {
      await this.#responses.sendAll(this.method.handle(ctx, request));
      this.succeed();
    } catch (error) {
      this.fail(error);
    }
  }

  protected override abandon(): void {
    this.#responses.abandon();
    super.abandon();
  }
}

class BidiCall extends Call<BidiMethod> {
  readonly #requests = new Requests(this.wire);
  readonly #responses = new Responses(this.wire);

  protected begin(ctx: CallContext): void {
    void this.#run(ctx);
  }

  onReceiveMessage(message: Buffer): void {
    this.#requests.push(message);
  }

  onReceiveHalfClose(): void {
    this.#requests.end();
  }

  protected abandon(): void {
    this.#requests.abandon();
    this.#responses.abandon();
  }

  async #run(ctx: CallContext): Promise<void> {
    try {
      this.wire.startRead();
      await this.#responses.sendAll(this.method.handle(ctx, this.#requests));
      this.succeed();
    } catch (error) {
      this.fail(error);
    }
  }
}

/** Sends what a handler yields, not faster than the client takes it. */
class Responses {
  readonly #wire: Wire;
  #unsentBytes = 0;
  #onSent: (() => void) | undefined;
  #abandoned = false;

  constructor(wire: Wire) {
    this.#wire = wire;
  }

  /** Resolves, or rejects with what the handler threw, after the handler's `finally`. */
  async sendAll(responses: AsyncIterable<Message>): Promise<void> {
    for await (const response of responses) {
      if (this.#abandoned) break;
      const bytes = lengthOf(checked(response));
      this.#unsentBytes += bytes;
      this.#wire.sendMessage(response, () => this.#sent(bytes));
      // Parts may be overwritten as soon as the handler goes on.
      const limit = response instanceof Uint8Array ? UNSENT_BYTES_MAX - 1 : 0;
      if (this.#unsentBytes > limit) await this.#until(limit);
      if (this.#abandoned) break;
    }
  }

  abandon(): void {
    this.#abandoned = true;
    this.#onSent?.();
  }

  #sent(bytes: number): void {
    this.#unsentBytes -= bytes;
    this.#onSent?.();
  }

  /** Resolves when no more than `bytes` are still to be sent, or there is nobody to send them to. */
  async #until(bytes: number): Promise<void> {
    while (this.#unsentBytes > bytes && !this.#abandoned) {
      await new Promise<void>((resolve) => {
        this.#onSent = resolve;
      });
    }
  }
}

/** Reads one message ahead of the handler, and no more: they may have 8 MiB each. */
class Requests implements AsyncIterable<Uint8Array>, AsyncIterator<Uint8Array> {
  readonly #wire: Wire;
  #readAhead: Buffer | undefined;
  #waiting: PromiseWithResolvers<IteratorResult<Uint8Array>> | undefined;
  #state: 'open' | 'halfClosed' | 'abandoned' | 'returned' = 'open';

  constructor(wire: Wire) {
    this.#wire = wire;
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return this;
  }

  next(): Promise<IteratorResult<Uint8Array>> {
    if (this.#state === 'abandoned') return Promise.reject(cancelledError());
    const value = this.#readAhead;
    if (value !== undefined) {
      this.#readAhead = undefined;
      this.#wire.startRead();
      return Promise.resolve({ done: false, value });
    }
    if (this.#state !== 'open') return Promise.resolve(DONE);
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  return(): Promise<IteratorResult<Uint8Array>> {
    this.#readAhead = undefined;
    if (this.#state !== 'abandoned') this.#state = 'returned';
    return Promise.resolve(DONE);
  }

  push(message: Buffer): void {
    if (this.#state !== 'open') return;
    if (this.#waiting === undefined) {
      this.#readAhead = message;
      return;
    }
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting.resolve({ done: false, value: message });
    this.#wire.startRead();
  }

  end(): void {
    if (this.#state !== 'open') return;
    this.#state = 'halfClosed';
    this.#waiting?.resolve(DONE);
  }

  abandon(): void {
    this.#state = 'abandoned';
    this.#readAhead = undefined;
    this.#waiting?.reject(cancelledError());
  }
}

const DONE = { done: true, value: undefined } as const;

const nothing = (): void => undefined;

const cancelledError = (): OpError => new OpError('Canceled', 'the client is gone');

/** @throws OpError ResourceExhausted where the client would refuse it */
function checked(message: Message): Message {
  const bytes = lengthOf(message);
  if (bytes <= MESSAGE_BYTES_MAX) return message;
  throw new OpError(
    'ResourceExhausted',
    `the answer has ${bytes} bytes, a message at most ${MESSAGE_BYTES_MAX}: ask for less`,
  );
}

function lengthOf(message: Message): number {
  if (message instanceof Uint8Array) return message.length;
  return message.reduce((sum, part) => sum + part.length, 0);
}
