import { OpError } from '../../base/errors.ts';
import { makeCall } from '../call.ts';
import type { CallListener, CallOwner, Message, Wire } from '../call.ts';
import { MessageAssembler, PREFIX_BYTES } from '../message-assembler.ts';
import type { Method } from '../service.ts';
import { statusNumber } from '../status.ts';
import type { CallStatus } from '../status.ts';
import { COPIED_BYTES_MAX } from './frames.ts';
import { encodeFields, type HeaderFields } from './hpack.ts';
import { timeoutMs } from './timeout.ts';

const RESPONSE_FIELDS = encodeFields([
  [':status', '200'],
  ['content-type', 'application/grpc+proto'],
  ['grpc-accept-encoding', 'identity'],
]);
const OK_TRAILERS = encodeFields([['grpc-status', '0']]);

/** What a stream needs of its connection. */
export interface StreamHost {
  sendFields(stream: Http2Stream, block: Uint8Array): void;
  /** Sends of the stream's `unsent` what both windows and the socket allow, now and later. */
  sendData(stream: Http2Stream): void;
  /** So many bytes of the client's were taken out of the stream's window. */
  consumed(stream: Http2Stream, bytes: number): void;
}

export interface Unsent {
  readonly bytes: Uint8Array;
  /** Called when it has left; where the memory is the handler's, not before the kernel has it. */
  readonly sent: (() => void) | undefined;
  readonly isOurs: boolean;
}

/** One call as a stream of HTTP/2. */
export class Http2Stream implements Wire {
  readonly id: number;
  /** Bytes that the client still takes. */
  sendWindow: number;
  /** Bytes that the client may still send. */
  receiveWindow: number;
  /** Consumed, and not told to the client yet. */
  owedCredit = 0;
  /** Framed by the connection, in order. */
  readonly unsent: Unsent[] = [];
  halfClosed = false;
  readonly fields: HeaderFields;

  readonly #host: StreamHost;
  #assembler = new MessageAssembler(true);
  /** Of the client, not looked at yet, as the call has not asked for more. */
  #unread: Buffer[] = [];
  /** Messages of chunks that were looked at; they are as small as those. */
  readonly #arrived: Buffer[] = [];
  #listener: CallListener | undefined;
  #wanted = false;
  #headersSent = false;
  #trailers: Uint8Array | undefined;
  #closed = false;
  #deadline: NodeJS.Timeout | undefined;

  constructor(
    id: number,
    fields: HeaderFields,
    windows: { readonly send: number; readonly receive: number },
    host: StreamHost,
  ) {
    this.id = id;
    this.fields = fields;
    this.sendWindow = windows.send;
    this.receiveWindow = windows.receive;
    this.#host = host;
  }

  serve(path: string, method: Method, owner: CallOwner): void {
    // A request of a unary call is dropped as soon as it is decoded, and keeps no part of itself.
    this.#assembler = new MessageAssembler(method.kind !== 'bidi');
    const listener = makeCall(path, method, this, owner);
    this.#listener = listener;
    this.#startDeadline();
    listener.onReceiveHeaders({ get: (name) => this.fields.get(name) });
  }

  /** Ends a stream that is no call. */
  refuseContentType(): void {
    this.#finish(encodeFields([[':status', '415']]));
  }

  startRead(): void {
    this.#wanted = true;
    this.#deliver();
  }

  sendMessage(message: Message, sent: () => void): void {
    if (this.#isOver()) return;
    if (!this.#headersSent) {
      this.#headersSent = true;
      this.#host.sendFields(this, RESPONSE_FIELDS);
    }
    if (message instanceof Uint8Array && message.length <= COPIED_BYTES_MAX) {
      this.unsent.push({ bytes: framed(message), sent, isOurs: true });
      this.#host.sendData(this);
      return;
    }
    const parts = message instanceof Uint8Array ? [message] : message;
    this.unsent.push({ bytes: prefixOf(parts), sent: undefined, isOurs: true });
    for (const [index, bytes] of parts.entries()) {
      this.unsent.push({
        bytes,
        sent: index === parts.length - 1 ? sent : undefined,
        isOurs: false,
      });
    }
    this.#host.sendData(this);
  }

  sendStatus(status: CallStatus): void {
    if (this.#isOver()) return;
    const trailers = trailersOf(status);
    this.#finish(this.#headersSent ? trailers : Buffer.concat([RESPONSE_FIELDS, trailers]));
  }

  /** The connection has sent all of `unsent`. */
  get trailersDue(): Uint8Array | undefined {
    return this.unsent.length === 0 ? this.#trailers : undefined;
  }

  receive(part: Buffer): void {
    if (this.#isOver()) return;
    this.#unread.push(part);
    this.#deliver();
  }

  receiveEnd(): void {
    this.halfClosed = true;
    this.#deliver();
  }

  /** Nothing more comes or goes. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.unsent.length = 0;
    this.#unread = [];
    clearTimeout(this.#deadline);
    this.#listener?.onCancel();
  }

  #finish(trailers: Uint8Array): void {
    this.#trailers = trailers;
    clearTimeout(this.#deadline);
    this.#unread = [];
    this.#host.sendData(this);
  }

  #deliver(): void {
    while (this.#wanted) {
      const message = this.#arrived.shift();
      if (message !== undefined) {
        this.#wanted = false;
        this.#listener?.onReceiveMessage(message);
        continue;
      }
      const part = this.#unread.shift();
      if (part === undefined) break;
      this.#look(part);
    }
    if (!this.#wanted || !this.halfClosed || this.#isOver()) return;
    this.#wanted = false;
    if (this.#assembler.isEmpty) this.#listener?.onReceiveHalfClose();
    else this.#refuse(new OpError('InvalidArgument', 'the request ends within a message'));
  }

  #look(part: Buffer): void {
    try {
      this.#arrived.push(...this.#assembler.add(part));
    } catch (error) {
      this.#refuse(error);
    }
    this.#host.consumed(this, part.length);
  }

  /** The client gets the status at once; the handler ends as if the client had gone. */
  #refuse(error: unknown): void {
    if (!(error instanceof OpError)) throw error;
    this.#wanted = false;
    this.sendStatus({ code: statusNumber(error.code), message: error.message });
    this.#listener?.onCancel();
  }

  #startDeadline(): void {
    const header = this.fields.get('grpc-timeout');
    const ms = header === undefined ? undefined : timeoutMs(header);
    if (ms === undefined) return;
    this.#deadline = setTimeout(
      () => this.#refuse(new OpError('DeadlineExceeded', `the deadline of ${header} has passed`)),
      ms,
    );
  }

  #isOver(): boolean {
    return this.#trailers !== undefined || this.#closed;
  }
}

/** For a call of a method that is not served. */
export const unimplemented = (path: string): CallStatus => ({
  code: statusNumber('Unimplemented'),
  message: `method ${path.slice(0, 200)} is not served here`,
});

/** Messages are percent-encoded UTF-8; status.ts has made them well-formed. */
const trailersOf = ({ code, message }: CallStatus): Uint8Array =>
  code === 0
    ? OK_TRAILERS
    : encodeFields([
        ['grpc-status', String(code)],
        ['grpc-message', encodeURI(message.toWellFormed())],
      ]);

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
