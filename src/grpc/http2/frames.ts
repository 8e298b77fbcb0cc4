import { ConnectionError, ERROR } from './errors.ts';

/** RFC 9113, section 6. */
export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const FLAG = { ack: 1, endStream: 1, endHeaders: 4, padded: 8, priority: 32 } as const;

export const SETTING = {
  enablePush: 2,
  streamsMax: 3,
  initialWindow: 4,
  frameBytesMax: 5,
  fieldsBytesMax: 6,
} as const;

export const HEADER_BYTES = 9;
/** Larger ones neither we nor the client have announced. */
export const FRAME_BYTES_MAX = 16384;
/** What is smaller is copied, to leave in one buffer with its neighbours; larger payloads go as they are. */
export const COPIED_BYTES_MAX = 4096;
/** Of every stream and connection until SETTINGS or WINDOW_UPDATE say otherwise. */
export const WINDOW_BYTES = 65535;
export const WINDOW_BYTES_MAX = 2 ** 31 - 1;

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

export function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + payload.length);
  writeHeader(bytes, { length: payload.length, type, flags, stream });
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

/** Of a frame whose payload is sent apart. */
export function frameHeader(header: FrameHeader): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES);
  writeHeader(bytes, header);
  return bytes;
}

function writeHeader(bytes: Buffer, { length, type, flags, stream }: FrameHeader): void {
  bytes[0] = length >>> 16;
  bytes[1] = length >>> 8;
  bytes[2] = length;
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(stream, 5);
}

/** A frame whose payload is one number. */
export function numberFrame(type: number, stream: number, value: number): Buffer {
  const payload = Buffer.allocUnsafe(4);
  payload.writeUInt32BE(value);
  return frame(type, 0, stream, payload);
}

export function settingsFrame(settings: readonly (readonly [id: number, value: number])[]): Buffer {
  const payload = Buffer.alloc(6 * settings.length);
  settings.forEach(([id, value], index) => {
    payload.writeUInt16BE(id, 6 * index);
    payload.writeUInt32BE(value, 6 * index + 2);
  });
  return frame(FRAME.settings, 0, 0, payload);
}

export interface FrameHeader {
  readonly length: number;
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
}

/** What is told of a client's bytes, in their order. */
export interface FrameHandler {
  /** A part of a DATA frame's payload as it comes, without padding; all of it counts for flow control. */
  onData(header: FrameHeader, part: Buffer, isFirst: boolean, isLast: boolean): void;
  /** Any other frame, whole. */
  onFrame(header: FrameHeader, payload: Buffer): void;
}

/** Cuts a client's bytes into frames. DATA is passed on without a copy, others are small. */
export class FrameReader {
  readonly #handler: FrameHandler;
  #prefaceBytes = 0;
  /** The beginning of a header, or of a payload that is no DATA. */
  #begun: Buffer | undefined;
  #header: FrameHeader | undefined;
  /** Of the payload of a DATA frame. */
  #dataLeft = 0;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** @throws ConnectionError protocol: not HTTP/2; frameSize */
  read(chunk: Buffer): void {
    let rest = this.#readPreface(chunk);
    while (rest.length > 0) {
      if (this.#header === undefined) {
        const bytes = this.#collect(rest, HEADER_BYTES);
        if (bytes === undefined) return;
        rest = rest.subarray(bytes.taken);
        this.#header = parseHeader(bytes.whole);
        this.#dataLeft = this.#header.length;
        if (this.#header.length > 0) continue;
      }
      rest = this.#readPayload(this.#header, rest);
    }
  }

  #readPayload(header: FrameHeader, rest: Buffer): Buffer {
    if (header.type === FRAME.data && (header.flags & FLAG.padded) === 0) {
      const part = rest.subarray(0, this.#dataLeft);
      const isFirst = this.#dataLeft === header.length;
      this.#dataLeft -= part.length;
      if (this.#dataLeft === 0) this.#header = undefined;
      this.#handler.onData(header, part, isFirst, this.#dataLeft === 0);
      return rest.subarray(part.length);
    }
    const bytes = this.#collect(rest, header.length);
    if (bytes === undefined) return rest.subarray(rest.length);
    this.#header = undefined;
    if (header.type === FRAME.data) {
      this.#handler.onData(header, withoutPadding(header, bytes.whole), true, true);
    } else {
      this.#handler.onFrame(header, bytes.whole);
    }
    return rest.subarray(bytes.taken);
  }

  /** So many bytes, the begun ones first; what is not enough is kept. */
  #collect(rest: Buffer, length: number): { whole: Buffer; taken: number } | undefined {
    const begun = this.#begun;
    const taken = length - (begun?.length ?? 0);
    if (rest.length < taken) {
      this.#begun = begun === undefined ? Buffer.from(rest) : Buffer.concat([begun, rest]);
      return undefined;
    }
    this.#begun = undefined;
    const part = rest.subarray(0, taken);
    return { whole: begun === undefined ? part : Buffer.concat([begun, part]), taken };
  }

  #readPreface(chunk: Buffer): Buffer {
    const wanted = PREFACE.subarray(this.#prefaceBytes, this.#prefaceBytes + chunk.length);
    if (wanted.length === 0) return chunk;
    if (!chunk.subarray(0, wanted.length).equals(wanted)) {
      throw new ConnectionError(ERROR.protocol, 'not HTTP/2');
    }
    this.#prefaceBytes += wanted.length;
    return chunk.subarray(wanted.length);
  }
}

/**
 * The payload of a DATA or HEADERS frame.
 * @throws ConnectionError protocol: more padding than payload
 */
export function withoutPadding({ flags }: FrameHeader, payload: Buffer): Buffer {
  if ((flags & FLAG.padded) === 0) return payload;
  const padding = payload[0];
  if (padding === undefined || padding >= payload.length) {
    throw new ConnectionError(ERROR.protocol, 'more padding than payload');
  }
  return payload.subarray(1, payload.length - padding);
}

function parseHeader(bytes: Buffer): FrameHeader {
  const length = bytes.readUIntBE(0, 3);
  if (length > FRAME_BYTES_MAX) {
    throw new ConnectionError(ERROR.frameSize, `a frame of ${length} bytes`);
  }
  return {
    length,
    type: bytes.readUInt8(3),
    flags: bytes.readUInt8(4),
    stream: bytes.readUInt32BE(5) & 0x7fffffff,
  };
}
