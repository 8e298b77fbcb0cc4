import type { IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { OpError } from '../base/errors.ts';
import { makeCall } from './call.ts';
import type { CallListener, CallOwner, Message, Wire } from './call.ts';
import { MessageAssembler, PREFIX_BYTES } from './message-assembler.ts';
import type { Method } from './service.ts';
import { statusNumber } from './status.ts';
import type { CallStatus } from './status.ts';

export const GRPC_CONTENT_TYPE = 'application/grpc';

const RESPONSE_HEADERS: OutgoingHttpHeaders = {
  ':status': 200,
  'content-type': 'application/grpc+proto',
  'grpc-accept-encoding': 'identity',
};
const NO_DATE = { sendDate: false };
const WITH_TRAILERS = { waitForTrailers: true, ...NO_DATE };
const WITHOUT_BODY = { endStream: true, ...NO_DATE };
const OK_TRAILERS: OutgoingHttpHeaders = { 'grpc-status': '0' };

/** Larger messages are not copied behind their prefix. */
const COPIED_BYTES_MAX = 16 << 10;

/** Milliseconds per unit of the header grpc-timeout. */
const TIMEOUT_UNITS: ReadonlyMap<string, number> = new Map([
  ['H', 3_600_000],
  ['M', 60_000],
  ['S', 1000],
  ['m', 1],
  ['u', 1e-3],
  ['n', 1e-6],
]);
/** What a timer can hold: 24 days. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** One call as a stream of HTTP/2. */
export class Http2Wire implements Wire {
  readonly #stream: ServerHttp2Stream;
  readonly #headers: IncomingHttpHeaders;
  readonly #assembler: MessageAssembler;
  /** Messages that came in one chunk and were not asked for yet; they are as small as the chunk. */
  readonly #arrived: Buffer[] = [];
  #listener: CallListener | undefined;
  #wanted = false;
  #halfClosed = false;
  #headersSent = false;
  #statusSent = false;
  #deadline: NodeJS.Timeout | undefined;

  /** @param mayShareChunk a request is dropped as soon as it is decoded, and keeps no part of itself */
  constructor(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, mayShareChunk: boolean) {
    this.#stream = stream;
    this.#headers = headers;
    this.#assembler = new MessageAssembler(mayShareChunk);
  }

  serve(path: string, method: Method, owner: CallOwner): void {
    const listener = makeCall(path, method, this, owner);
    this.#listener = listener;
    const stream = this.#stream;
    stream.on('data', (chunk: Buffer) => this.#receive(chunk));
    stream.pause();
    stream.on('end', () => {
      // A stream that was cut off ends, too; its close comes next.
      if (stream.aborted) return;
      this.#halfClosed = true;
      this.#deliver();
    });
    stream.once('close', () => {
      clearTimeout(this.#deadline);
      listener.onCancel();
    });
    this.#startDeadline();
    listener.onReceiveHeaders({ get: (name) => headerOf(this.#headers, name) });
  }

  startRead(): void {
    this.#wanted = true;
    if (this.#arrived.length > 0 || this.#halfClosed) this.#deliver();
    else this.#stream.resume();
  }

  sendMessage(message: Message, sent: () => void): void {
    if (this.#isOver()) return;
    this.#sendHeaders();
    if (message instanceof Uint8Array && message.length <= COPIED_BYTES_MAX) {
      this.#stream.write(framed(message), sent);
      return;
    }
    const parts = message instanceof Uint8Array ? [message] : message;
    this.#stream.cork();
    this.#stream.write(prefixOf(parts));
    for (const [index, part] of parts.entries()) {
      this.#stream.write(part, index === parts.length - 1 ? () => sent() : undefined);
    }
    this.#stream.uncork();
  }

  sendStatus(status: CallStatus): void {
    if (this.#isOver()) return;
    this.#statusSent = true;
    clearTimeout(this.#deadline);
    const trailers = trailersOf(status);
    if (this.#headersSent) {
      this.#stream.once('wantTrailers', () => this.#stream.sendTrailers(trailers));
      this.#stream.end();
    } else {
      this.#stream.respond({ ...RESPONSE_HEADERS, ...trailers }, WITHOUT_BODY);
    }
    // Whatever the client still sends is dropped, so that its half of the stream can close.
    this.#stream.resume();
  }

  #receive(chunk: Buffer): void {
    if (this.#statusSent) return;
    try {
      this.#arrived.push(...this.#assembler.add(chunk));
    } catch (error) {
      this.#refuse(error);
      return;
    }
    if (this.#arrived.length > 0) {
      this.#stream.pause();
      this.#deliver();
    }
  }

  #deliver(): void {
    if (!this.#wanted) return;
    const message = this.#arrived.shift();
    if (message !== undefined) {
      this.#wanted = false;
      this.#listener?.onReceiveMessage(message);
    } else if (this.#halfClosed) {
      this.#wanted = false;
      if (this.#assembler.isEmpty) this.#listener?.onReceiveHalfClose();
      else this.#refuse(new OpError('InvalidArgument', 'the request ends within a message'));
    }
  }

  /** The client gets the status at once; the handler ends as if the client had gone. */
  #refuse(error: unknown): void {
    if (!(error instanceof OpError)) throw error;
    this.sendStatus({ code: statusNumber(error.code), message: error.message });
    this.#listener?.onCancel();
  }

  #startDeadline(): void {
    const header = headerOf(this.#headers, 'grpc-timeout');
    if (header === undefined) return;
    const [, digits, unit = ''] = /^(\d{1,8})([HMSmun])$/.exec(header) ?? [];
    const ms = Number(digits) * (TIMEOUT_UNITS.get(unit) ?? Number.NaN);
    if (Number.isNaN(ms)) return;
    this.#deadline = setTimeout(
      () => this.#refuse(new OpError('DeadlineExceeded', `the deadline of ${header} has passed`)),
      Math.min(ms, TIMER_MS_MAX),
    );
  }

  #sendHeaders(): void {
    if (this.#headersSent) return;
    this.#headersSent = true;
    this.#stream.respond(RESPONSE_HEADERS, WITH_TRAILERS);
  }

  #isOver(): boolean {
    return this.#statusSent || this.#stream.destroyed || this.#stream.closed;
  }
}

/** Answers a call of a method that is not served. */
export function unimplemented(stream: ServerHttp2Stream, path: string): void {
  const status = {
    code: statusNumber('Unimplemented'),
    message: `method ${path.slice(0, 200)} is not served here`,
  };
  stream.respond({ ...RESPONSE_HEADERS, ...trailersOf(status) }, WITHOUT_BODY);
  stream.resume();
}

/** Messages are percent-encoded UTF-8; status.ts has made them well-formed. */
const trailersOf = ({ code, message }: CallStatus): OutgoingHttpHeaders =>
  code === 0
    ? OK_TRAILERS
    : { 'grpc-status': String(code), 'grpc-message': encodeURI(message.toWellFormed()) };

function headerOf(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return typeof value === 'string' ? value : value?.[0];
}

function framed(message: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(PREFIX_BYTES + message.length);
  frame[0] = 0;
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, PREFIX_BYTES);
  return frame;
}

function prefixOf(parts: readonly Uint8Array[]): Buffer {
  const prefix = Buffer.allocUnsafe(PREFIX_BYTES);
  prefix[0] = 0;
  prefix.writeUInt32BE(
    parts.reduce((sum, part) => sum + part.length, 0),
    1,
  );
  return prefix;
}
