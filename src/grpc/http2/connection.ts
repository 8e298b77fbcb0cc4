import type { Socket } from 'node:net';
import type { CallOwner } from '../call.ts';
import type { Method } from '../service.ts';
import { ConnectionError, ERROR, type ErrorNumber } from './errors.ts';
import {
  FLAG,
  FRAME,
  frame,
  FRAME_BYTES_MAX,
  FrameReader,
  HEADER_BYTES,
  numberFrame,
  SETTING,
  settingsFrame,
  WINDOW_BYTES,
  WINDOW_BYTES_MAX,
  withoutPadding,
  type FrameHandler,
  type FrameHeader,
} from './frames.ts';
import { FIELDS_BYTES_MAX, HpackDecoder, type HeaderFields } from './hpack.ts';
import { Output } from './output.ts';
import { Sending } from './sending.ts';
import { Http2Stream, unimplemented, type StreamHost } from './stream.ts';

const GRPC_CONTENT_TYPE = 'application/grpc';

/** The default of 64 KiB makes a message of 8 MiB wait for 128 round trips. */
const STREAM_WINDOW_BYTES = 1 << 20;
const CONNECTION_WINDOW_BYTES = 8 << 20;
/** containerd has one connection for all its plugins and holds a stream per open writer. */
const STREAMS_MAX = 10_000;
/** Of a header block in CONTINUATION frames, encoded. */
const BLOCK_BYTES_MAX = 2 * FIELDS_BYTES_MAX;

export interface ConnectionOwner extends CallOwner {
  /** By path; undefined while the server starts, which `startCalls` ends. */
  readonly methods: ReadonlyMap<string, Method> | undefined;
  connectionClosed(connection: Connection): void;
}

/**
 * One client's connection, HTTP/2 without TLS (RFC 9113), as far as gRPC needs it: requests with bodies,
 * answers with trailers, no push, no priorities. Streams that a client resets are forgotten, however
 * many: containerd resets one for each ReadAt. What a client may make us hold is bounded by the windows
 * of its streams, and by not reading from one that does not read.
 */
export class Connection implements FrameHandler, StreamHost {
  readonly #socket: Socket;
  readonly #owner: ConnectionOwner;
  readonly #sending: Sending;
  readonly #reader = new FrameReader(this);
  readonly #decoder = new HpackDecoder();
  readonly #streams = new Map<number, Http2Stream>();
  #lastStream = 0;
  /** A header block whose CONTINUATION frames are still to come. */
  #block: { readonly header: FrameHeader; readonly parts: Buffer[]; bytes: number } | undefined;
  #receiveWindow = CONNECTION_WINDOW_BYTES;
  #owedCredit = 0;
  /** Of new streams, by the client's SETTINGS. */
  #streamSendWindow = WINDOW_BYTES;
  #settingsSeen = false;
  #leaving = false;
  #broken = false;

  constructor(socket: Socket, owner: ConnectionOwner) {
    this.#socket = socket;
    this.#owner = owner;
    const output = new Output(socket, () => this.#streams.size);
    this.#sending = new Sending(output, (stream) => this.#forget(stream));
    this.#send(
      settingsFrame([
        [SETTING.streamsMax, STREAMS_MAX],
        [SETTING.initialWindow, STREAM_WINDOW_BYTES],
        [SETTING.fieldsBytesMax, FIELDS_BYTES_MAX],
      ]),
    );
    this.#send(numberFrame(FRAME.windowUpdate, 0, CONNECTION_WINDOW_BYTES - WINDOW_BYTES));
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('drain', () => this.#resume());
    // Each error comes with a close.
    socket.on('error', () => undefined);
    socket.once('close', () => this.#closed());
  }

  /** There are methods now. */
  startCalls(): void {
    for (const stream of this.#streams.values()) this.#start(stream);
  }

  /** Takes no new calls; closes when the running ones have ended. */
  leave(): void {
    if (this.#leaving) return;
    this.#leaving = true;
    this.#goAway(ERROR.none, '');
    this.#endWhenIdle();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  onData(header: FrameHeader, part: Buffer, isFirst: boolean, isLast: boolean): void {
    const { length } = header;
    const stream = this.#streamOf(header);
    if (isFirst) {
      this.#refuseWithinBlock();
      if (length > this.#receiveWindow) {
        throw new ConnectionError(ERROR.flowControl, 'more data than the connection has room for');
      }
      this.#receiveWindow -= length;
      this.#credit(length);
    }
    if (stream === undefined) return;
    const refused = refusal(stream, isFirst ? length : 0);
    if (refused !== undefined) return this.#reset(stream, refused);
    if (isFirst) stream.receiveWindow -= length;
    // A padded frame comes in one part; padding is consumed as soon as it is there.
    if ((header.flags & FLAG.padded) !== 0) this.consumed(stream, length - part.length);
    if (part.length > 0) stream.receive(part);
    if (isLast && (header.flags & FLAG.endStream) !== 0) stream.receiveEnd();
  }

  onFrame(header: FrameHeader, payload: Buffer): void {
    if (!this.#settingsSeen && header.type !== FRAME.settings) {
      throw new ConnectionError(ERROR.protocol, 'the first frame is not SETTINGS');
    }
    if (header.type !== FRAME.continuation) this.#refuseWithinBlock();
    switch (header.type) {
      case FRAME.headers:
        return this.#onHeaders(header, payload);
      case FRAME.continuation:
        return this.#onContinuation(header, payload);
      case FRAME.settings:
        return this.#onSettings(header, payload);
      case FRAME.ping:
        return this.#onPing(header, payload);
      case FRAME.windowUpdate:
        return this.#onWindowUpdate(header, payload);
      case FRAME.rstStream:
        return this.#onReset(header);
      case FRAME.priority:
        return requireLength(header, 5);
      case FRAME.pushPromise:
        throw new ConnectionError(ERROR.protocol, 'a client cannot push');
      default:
      // GOAWAY changes nothing for a server; unknown frames are to be ignored.
    }
  }

  sendFields(stream: Http2Stream, block: Uint8Array): void {
    this.#sending.sendFields(stream, block, false);
  }

  sendData(stream: Http2Stream): void {
    this.#sending.sendData(stream);
  }

  consumed(stream: Http2Stream, bytes: number): void {
    if (stream.halfClosed || !this.#streams.has(stream.id)) return;
    stream.owedCredit += bytes;
    if (stream.owedCredit < STREAM_WINDOW_BYTES / 2) return;
    this.#send(numberFrame(FRAME.windowUpdate, stream.id, stream.owedCredit));
    stream.receiveWindow += stream.owedCredit;
    stream.owedCredit = 0;
  }

  /**
   * At once: back-pressure is the streams' affair. Handlers that wait for a dead disk must not use up
   * what the other calls of their connection need; grpc-go does the same.
   */
  #credit(bytes: number): void {
    this.#owedCredit += bytes;
    if (this.#owedCredit < CONNECTION_WINDOW_BYTES / 4) return;
    this.#send(numberFrame(FRAME.windowUpdate, 0, this.#owedCredit));
    this.#receiveWindow += this.#owedCredit;
    this.#owedCredit = 0;
  }

  #send(bytes: Uint8Array): void {
    this.#sending.send(bytes);
  }

  #read(chunk: Buffer): void {
    if (this.#broken) return;
    try {
      this.#reader.read(chunk);
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error;
      this.#break(error);
      return;
    }
    if (this.#sending.isCongested) this.#socket.pause();
  }

  /** The socket has room again. */
  #resume(): void {
    this.#sending.sendHeld();
    if (!this.#sending.isCongested) this.#socket.resume();
  }

  #onHeaders(header: FrameHeader, payload: Buffer): void {
    const unpadded = withoutPadding(header, payload);
    const fieldsAt = (header.flags & FLAG.priority) === 0 ? 0 : 5;
    if (unpadded.length < fieldsAt) throw new ConnectionError(ERROR.frameSize, 'short HEADERS');
    const part = unpadded.subarray(fieldsAt);
    if ((header.flags & FLAG.endHeaders) !== 0) {
      this.#onFields(header, this.#decoder.decode(part));
      return;
    }
    this.#block = { header, parts: [Buffer.from(part)], bytes: part.length };
  }

  #onContinuation(header: FrameHeader, payload: Buffer): void {
    const block = this.#block;
    if (block === undefined || block.header.stream !== header.stream) {
      throw new ConnectionError(ERROR.protocol, 'CONTINUATION of nothing');
    }
    block.parts.push(Buffer.from(payload));
    // An empty frame counts too: a flood of them must end.
    block.bytes += payload.length + HEADER_BYTES;
    if (block.bytes > BLOCK_BYTES_MAX) {
      throw new ConnectionError(ERROR.enhanceYourCalm, 'a header block without an end');
    }
    if ((header.flags & FLAG.endHeaders) === 0) return;
    this.#block = undefined;
    this.#onFields(block.header, this.#decoder.decode(Buffer.concat(block.parts)));
  }

  #onFields(header: FrameHeader, fields: HeaderFields): void {
    const id = header.stream;
    const endsStream = (header.flags & FLAG.endStream) !== 0;
    if (id <= this.#lastStream) {
      const stream = this.#streamOf(header);
      // Trailers, which gRPC's clients have none of.
      if (stream === undefined) return;
      if (stream.halfClosed) this.#reset(stream, ERROR.streamClosed);
      else if (!endsStream) this.#reset(stream, ERROR.protocol);
      else stream.receiveEnd();
      return;
    }
    if (id % 2 === 0) throw new ConnectionError(ERROR.protocol, `stream ${id} is not a client's`);
    this.#lastStream = id;
    if (this.#leaving || this.#streams.size >= STREAMS_MAX) {
      this.#send(numberFrame(FRAME.rstStream, id, ERROR.refusedStream));
      return;
    }
    const windows = { send: this.#streamSendWindow, receive: STREAM_WINDOW_BYTES };
    const stream = new Http2Stream(id, fields, windows, this);
    this.#streams.set(id, stream);
    stream.halfClosed = endsStream;
    this.#start(stream);
  }

  #start(stream: Http2Stream): void {
    const { methods } = this.#owner;
    if (methods === undefined) return;
    const path = stream.fields.get(':path');
    if (path === undefined || stream.fields.get(':method') === undefined) {
      this.#reset(stream, ERROR.protocol);
      return;
    }
    const isGrpc = stream.fields.get('content-type')?.startsWith(GRPC_CONTENT_TYPE) === true;
    if (!isGrpc) return stream.refuseContentType();
    const method = methods.get(path);
    if (method === undefined) stream.sendStatus(unimplemented(path));
    else stream.serve(path, method, this.#owner);
  }

  #onSettings(header: FrameHeader, payload: Buffer): void {
    requireNoStream(header);
    if ((header.flags & FLAG.ack) !== 0) return requireLength(header, 0);
    if (payload.length % 6 !== 0) throw new ConnectionError(ERROR.frameSize, 'SETTINGS');
    this.#settingsSeen = true;
    for (let at = 0; at < payload.length; at += 6) {
      this.#apply(payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
    }
    this.#send(frame(FRAME.settings, FLAG.ack, 0, Buffer.alloc(0)));
  }

  /** The size of the header table is none of ours (NO_TABLE), and neither are larger frames. */
  #apply(setting: number, value: number): void {
    switch (setting) {
      case SETTING.enablePush:
        if (value > 1) throw new ConnectionError(ERROR.protocol, 'ENABLE_PUSH');
        return;
      case SETTING.frameBytesMax:
        if (value < FRAME_BYTES_MAX || value > 0xffffff) {
          throw new ConnectionError(ERROR.protocol, 'MAX_FRAME_SIZE');
        }
        return;
      case SETTING.initialWindow:
        return this.#resizeWindows(value);
      default:
    }
  }

  #resizeWindows(bytes: number): void {
    const more = bytes - this.#streamSendWindow;
    this.#streamSendWindow = bytes;
    if (bytes > WINDOW_BYTES_MAX) {
      throw new ConnectionError(ERROR.flowControl, 'INITIAL_WINDOW_SIZE');
    }
    for (const stream of this.#streams.values()) {
      stream.sendWindow += more;
      if (stream.sendWindow > WINDOW_BYTES_MAX) {
        throw new ConnectionError(ERROR.flowControl, 'INITIAL_WINDOW_SIZE');
      }
      this.sendData(stream);
    }
  }

  #onPing(header: FrameHeader, payload: Buffer): void {
    requireNoStream(header);
    requireLength(header, 8);
    if ((header.flags & FLAG.ack) === 0) this.#send(frame(FRAME.ping, FLAG.ack, 0, payload));
  }

  #onWindowUpdate(header: FrameHeader, payload: Buffer): void {
    requireLength(header, 4);
    const bytes = payload.readUInt32BE(0) & 0x7fffffff;
    if (header.stream === 0) {
      if (bytes === 0) throw new ConnectionError(ERROR.protocol, 'WINDOW_UPDATE of 0');
      return this.#sending.grow(bytes);
    }
    const stream = this.#streamOf(header);
    if (stream === undefined) return;
    stream.sendWindow += bytes;
    if (bytes === 0) this.#reset(stream, ERROR.protocol);
    else if (stream.sendWindow > WINDOW_BYTES_MAX) this.#reset(stream, ERROR.flowControl);
    else this.sendData(stream);
  }

  #onReset(header: FrameHeader): void {
    requireLength(header, 4);
    const stream = this.#streamOf(header);
    if (stream !== undefined) this.#forget(stream);
  }

  /**
   * @returns undefined for one that has ended
   * @throws ConnectionError for one that has not begun
   */
  #streamOf({ stream }: FrameHeader): Http2Stream | undefined {
    if (stream === 0 || stream > this.#lastStream) {
      throw new ConnectionError(ERROR.protocol, `stream ${stream} has not begun`);
    }
    return this.#streams.get(stream);
  }

  #refuseWithinBlock(): void {
    if (this.#block !== undefined) {
      throw new ConnectionError(ERROR.protocol, 'another frame within a header block');
    }
  }

  #reset(stream: Http2Stream, code: ErrorNumber): void {
    this.#send(numberFrame(FRAME.rstStream, stream.id, code));
    this.#forget(stream);
  }

  #forget(stream: Http2Stream): void {
    if (!this.#streams.delete(stream.id)) return;
    this.#sending.forget(stream);
    stream.close();
    this.#endWhenIdle();
  }

  #endWhenIdle(): void {
    if (!this.#leaving || this.#streams.size > 0) return;
    this.#sending.flush();
    this.#socket.end();
  }

  #break(error: ConnectionError): void {
    this.#broken = true;
    this.#goAway(error.code, error.message);
    this.#sending.flush();
    this.#socket.destroySoon();
    // A client that does not read delays the close, and with it the end of its calls.
    this.#forgetAll();
  }

  #goAway(code: ErrorNumber, message: string): void {
    const payload = Buffer.alloc(8 + message.length);
    payload.writeUInt32BE(this.#lastStream, 0);
    payload.writeUInt32BE(code, 4);
    payload.write(message, 8, 'latin1');
    this.#send(frame(FRAME.goAway, 0, 0, payload));
  }

  #closed(): void {
    this.#broken = true;
    this.#forgetAll();
    this.#owner.connectionClosed(this);
  }

  #forgetAll(): void {
    for (const stream of this.#streams.values()) this.#forget(stream);
  }
}

/** Why a stream cannot take so many bytes more. */
function refusal(stream: Http2Stream, bytes: number): ErrorNumber | undefined {
  if (stream.halfClosed) return ERROR.streamClosed;
  return bytes > stream.receiveWindow ? ERROR.flowControl : undefined;
}

function requireLength({ length }: FrameHeader, expected: number): void {
  if (length !== expected) throw new ConnectionError(ERROR.frameSize, `a frame of ${length} bytes`);
}

function requireNoStream({ stream }: FrameHeader): void {
  if (stream !== 0) throw new ConnectionError(ERROR.protocol, `not for stream ${stream}`);
}
