import type { Socket } from 'node:net';
import { COPIED_BYTES_MAX } from './frames.ts';

/** With no more calls than this, an answer leaves at the end of its turn: somebody waits for just it. */
const FEW_CALLS = 4;
/** Unsent bytes from which nothing more is taken in or sent, so that a client that does not read has no hold on memory. */
const CONGESTED_BYTES = 1 << 20;

interface Piece {
  readonly bytes: Uint8Array;
  readonly sent: (() => void) | undefined;
}

/** What goes to a client: collected over a turn of the event loop and written at once. */
export class Output {
  readonly #socket: Socket;
  readonly #callsOpen: () => number;
  #pieces: Piece[] = [];
  #bytes = 0;
  #scheduled = false;

  constructor(socket: Socket, callsOpen: () => number) {
    this.#socket = socket;
    this.#callsOpen = callsOpen;
  }

  get isCongested(): boolean {
    return this.#bytes + this.#socket.writableLength > CONGESTED_BYTES;
  }

  /** @param sent called when the memory of `bytes` is free again */
  add(bytes: Uint8Array, sent?: () => void): void {
    this.#pieces.push({ bytes, sent });
    this.#bytes += bytes.length;
    if (this.#scheduled) return;
    this.#scheduled = true;
    if (this.#callsOpen() <= FEW_CALLS) process.nextTick(() => this.flush());
    else setImmediate(() => this.flush());
  }

  flush(): void {
    this.#scheduled = false;
    const pieces = this.#pieces;
    if (pieces.length === 0) return;
    this.#pieces = [];
    this.#bytes = 0;
    // Ended by us, or gone. To write would destroy it, with all that has not left yet.
    if (!this.#socket.writable) return;
    this.#socket.cork();
    let small: Uint8Array[] = [];
    const writeSmall = (): void => {
      if (small.length === 0) return;
      this.#socket.write(small.length === 1 ? (small[0] ?? '') : Buffer.concat(small));
      small = [];
    };
    for (const { bytes, sent } of pieces) {
      if (bytes.length <= COPIED_BYTES_MAX && sent === undefined) {
        small.push(bytes);
        continue;
      }
      writeSmall();
      this.#socket.write(bytes, sent === undefined ? undefined : () => sent());
    }
    writeSmall();
    this.#socket.uncork();
  }
}
