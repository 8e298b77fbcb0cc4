// A client that writes the frames it is told to, sound or not, and shows those that come back.
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { FRAME, frame, settingsFrame } from '../../src/grpc/http2/frames.ts';
import { encodeFields } from '../../src/grpc/http2/hpack.ts';

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

export const requestFields = (path: string): Buffer =>
  encodeFields([
    [':method', 'POST'],
    [':scheme', 'http'],
    [':path', path],
    ['content-type', 'application/grpc'],
  ]);

/** A gRPC message of so many bytes. */
export function message(length: number): Buffer {
  const bytes = Buffer.alloc(5 + length, 7);
  bytes.writeUInt8(0, 0);
  bytes.writeUInt32BE(length, 1);
  return bytes;
}

export const numbered = (value: number): Buffer => {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(value);
  return payload;
};

export class RawClient implements AsyncDisposable {
  readonly socket: Socket;
  readonly frames: Frame[] = [];
  /** Also after an error, which once() would throw. */
  readonly closed: Promise<void>;
  #rest = Buffer.alloc(0);
  #onFrame = (): void => undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
    void this.closed.then(() => this.#onFrame());
  }

  /** With the preface, unless another beginning is given. */
  static async connect(
    path: string,
    beginning = Buffer.concat([PREFACE, settingsFrame([])]),
  ): Promise<RawClient> {
    const socket = connect(path);
    await once(socket, 'connect');
    socket.write(beginning);
    return new RawClient(socket);
  }

  send(type: number, flags: number, stream: number, payload: Uint8Array): void {
    this.socket.write(frame(type, flags, stream, payload));
  }

  /** The first frame, past or to come, that is so; undefined when the connection closes before. */
  async find(isIt: (frame: Frame) => boolean): Promise<Frame | undefined> {
    for (;;) {
      const found = this.frames.find(isIt);
      if (found !== undefined || this.socket.closed) return found;
      await new Promise<void>((resolve) => {
        this.#onFrame = resolve;
      });
    }
  }

  async goAwayCode(): Promise<number | undefined> {
    const found = await this.find(({ type }) => type === FRAME.goAway);
    return found?.payload.readUInt32BE(4);
  }

  async resetCode(stream: number): Promise<number | undefined> {
    const found = await this.find(
      (each) => each.type === FRAME.rstStream && each.stream === stream,
    );
    return found?.payload.readUInt32BE(0);
  }

  /** Resolves when the server has taken in all that was sent before. */
  async ping(): Promise<void> {
    const token = Buffer.from(String(this.frames.length).padStart(8));
    this.send(FRAME.ping, 0, 0, token);
    await this.find(({ type, payload }) => type === FRAME.ping && payload.equals(token));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy();
    await this.closed;
  }

  #read(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= 9) {
      const end = 9 + this.#rest.readUIntBE(0, 3);
      if (this.#rest.length < end) break;
      this.frames.push({
        type: this.#rest.readUInt8(3),
        flags: this.#rest.readUInt8(4),
        stream: this.#rest.readUInt32BE(5),
        payload: this.#rest.subarray(9, end),
      });
      this.#rest = this.#rest.subarray(end);
    }
    this.#onFrame();
  }
}
