import { ConnectionError, ERROR } from './errors.ts';
import {
  COPIED_BYTES_MAX,
  FLAG,
  FRAME,
  frame,
  FRAME_BYTES_MAX,
  frameHeader,
  numberFrame,
  WINDOW_BYTES,
  WINDOW_BYTES_MAX,
} from './frames.ts';
import { NO_TABLE } from './hpack.ts';
import type { Output } from './output.ts';
import type { Http2Stream, Unsent } from './stream.ts';

/** What goes to one client: frames, as its windows and the socket have room. */
export class Sending {
  readonly #output: Output;
  readonly #onEnded: (stream: Http2Stream) => void;
  /** With something to send and no room in the connection's window or the socket. */
  readonly #held = new Set<Http2Stream>();
  /** Bytes that the client still takes on all streams together. */
  #window = WINDOW_BYTES;
  #fieldsSent = false;

  /** @param onEnded the last frame of a stream is on its way */
  constructor(output: Output, onEnded: (stream: Http2Stream) => void) {
    this.#output = output;
    this.#onEnded = onEnded;
  }

  get isCongested(): boolean {
    return this.#output.isCongested;
  }

  send(bytes: Uint8Array): void {
    this.#output.add(bytes);
  }

  flush(): void {
    this.#output.flush();
  }

  sendFields(stream: Http2Stream, block: Uint8Array, endsStream: boolean): void {
    const flags = endsStream ? FLAG.endHeaders | FLAG.endStream : FLAG.endHeaders;
    if (this.#fieldsSent) {
      this.send(frame(FRAME.headers, flags, stream.id, block));
      return;
    }
    this.#fieldsSent = true;
    this.send(frame(FRAME.headers, flags, stream.id, Buffer.concat([NO_TABLE, block])));
  }

  /** Sends of the stream's `unsent` what both windows and the socket allow, and its trailers behind that. */
  sendData(stream: Http2Stream): void {
    for (let piece = stream.unsent[0]; piece !== undefined; piece = stream.unsent[0]) {
      const room = Math.min(stream.sendWindow, this.#window, FRAME_BYTES_MAX);
      if (room <= 0 || this.#output.isCongested) {
        if (stream.sendWindow > 0) this.#held.add(stream);
        return;
      }
      const isWhole = piece.bytes.length <= room;
      const part = isWhole
        ? piece
        : { ...piece, bytes: piece.bytes.subarray(0, room), sent: undefined };
      if (isWhole) stream.unsent.shift();
      else stream.unsent[0] = { ...piece, bytes: piece.bytes.subarray(room) };
      stream.sendWindow -= part.bytes.length;
      this.#window -= part.bytes.length;
      this.#sendPart(stream.id, part);
    }
    const trailers = stream.trailersDue;
    if (trailers === undefined) return;
    this.sendFields(stream, trailers, true);
    // What the client still sends is of no use to anyone.
    if (!stream.halfClosed) this.send(numberFrame(FRAME.rstStream, stream.id, ERROR.none));
    this.#onEnded(stream);
  }

  /** @throws ConnectionError flowControl: more than a window may have */
  grow(bytes: number): void {
    this.#window += bytes;
    if (this.#window > WINDOW_BYTES_MAX) {
      throw new ConnectionError(ERROR.flowControl, 'WINDOW_UPDATE');
    }
    this.sendHeld();
  }

  /** There may be room again. */
  sendHeld(): void {
    for (const stream of this.#held) {
      if (this.#window <= 0 || this.#output.isCongested) return;
      this.#held.delete(stream);
      this.sendData(stream);
    }
  }

  forget(stream: Http2Stream): void {
    this.#held.delete(stream);
  }

  #sendPart(id: number, { bytes, sent, isOurs }: Unsent): void {
    if (bytes.length <= COPIED_BYTES_MAX) {
      // Copied, but what came before of the same message is perhaps not.
      this.#output.add(frame(FRAME.data, 0, id, bytes), isOurs ? undefined : sent);
      if (isOurs) sent?.();
      return;
    }
    this.send(frameHeader({ length: bytes.length, type: FRAME.data, flags: 0, stream: id }));
    this.#output.add(bytes, sent);
  }
}
