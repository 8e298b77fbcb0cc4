import { constants, createGunzip, createZstdDecompress } from 'node:zlib';
import { OpError } from '../../base/errors.ts';

export type Compression = 'none' | 'gzip' | 'zstd';

/** A frame may ask for more; what the compressors of images use fits. 32 MiB, as a power of two. */
const ZSTD_WINDOW_LOG_MAX = 25;

const NONE = new Uint8Array(0);

/** By the first bytes, as containerd does: media types lie. RFC 1952, RFC 8878 section 3.1 */
export function compressionOf(start: Uint8Array): Compression {
  const [a, b, c, d] = start;
  if (a === 0x1f && b === 0x8b) return 'gzip';
  if (a === 0x28 && b === 0xb5 && c === 0x2f && d === 0xfd) return 'zstd';
  const isSkippable = a !== undefined && (a & 0xf0) === 0x50;
  if (isSkippable && b === 0x2a && c === 0x4d && d === 0x18) return 'zstd';
  return 'none';
}

/** Where inflated bytes go: memory to fill from its start, and how much of it was. */
export interface Output {
  slot(): Uint8Array;
  publish(length: number): void;
}

export interface Inflater {
  /** Inflates all of `input`. @throws OpError DataLoss: it is corrupt */
  push(input: Uint8Array): void;
  /** @throws OpError DataLoss: it was cut off */
  finish(): void;
}

export function makeInflater(compression: Compression, output: Output): Inflater {
  return compression === 'none' ? new Copier(output) : new ZlibInflater(compression, output);
}

class Copier implements Inflater {
  readonly #output: Output;

  constructor(output: Output) {
    this.#output = output;
  }

  push(input: Uint8Array): void {
    for (let rest = input; rest.length > 0;) {
      const slot = this.#output.slot();
      const part = rest.subarray(0, slot.length);
      slot.set(part);
      this.#output.publish(part.length);
      rest = rest.subarray(part.length);
    }
  }

  finish(): void {}
}

/**
 * What node:zlib's streams are made of. Called directly it inflates into memory of ours, in this thread,
 * as fast as zlib itself: the streams above it cost a copy and a third of the time (docs/performance.md).
 * Internal to Node, whose version is pinned; the tests of this file would notice a change.
 */
interface ZlibHandle {
  writeSync(
    flush: number,
    input: Uint8Array,
    inputAt: number,
    inputBytes: number,
    output: Uint8Array,
    outputAt: number,
    outputBytes: number,
  ): void;
  onerror: (message: string) => void;
}

class ZlibInflater implements Inflater {
  readonly #compression: 'gzip' | 'zstd';
  readonly #output: Output;
  readonly #handle: ZlibHandle;
  /** Filled by each write: bytes left in the output, and in the input. */
  readonly #left: Uint32Array;
  readonly #end: number;
  #slot: Uint8Array;
  /** Bytes in the slot. */
  #used = 0;
  #failure: string | undefined;
  /** Of the compressed stream. */
  #offset = 0;
  #ended = false;

  constructor(compression: 'gzip' | 'zstd', output: Output) {
    this.#compression = compression;
    this.#output = output;
    const stream =
      compression === 'gzip'
        ? createGunzip()
        : createZstdDecompress({
            params: { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG_MAX },
          });
    this.#end = compression === 'gzip' ? constants.Z_FINISH : constants.ZSTD_e_end;
    ({ handle: this.#handle, left: this.#left } = partsOf(stream));
    this.#handle.onerror = (message) => {
      this.#failure ??= message;
    };
    this.#slot = output.slot();
  }

  push(input: Uint8Array): void {
    for (let at = 0; at < input.length;) {
      const rest = input.length - at;
      if (this.#ended) return this.#checkPadding(input.subarray(at));
      const consumed = this.#write(0, input, at);
      at += consumed;
      this.#offset += consumed;
      if (consumed === 0 && rest > 0 && this.#madeNothing) this.#ended = true;
    }
  }

  finish(): void {
    // Only this makes zlib tell of a stream that was cut off.
    this.#write(this.#end, NONE, 0);
    if (this.#used > 0) this.#publish();
  }

  #madeNothing = false;

  /** @returns bytes consumed, once no more comes out for them */
  #write(flush: number, input: Uint8Array, at: number): number {
    let consumed = 0;
    this.#madeNothing = true;
    for (;;) {
      const space = this.#slot.length - this.#used;
      const rest = input.length - at - consumed;
      this.#handle.writeSync(flush, input, at + consumed, rest, this.#slot, this.#used, space);
      if (this.#failure !== undefined) throw this.#fault(this.#failure);
      const [spaceLeft = 0, inputLeft = 0] = this.#left;
      consumed += rest - inputLeft;
      if (spaceLeft !== space) this.#madeNothing = false;
      this.#used += space - spaceLeft;
      if (spaceLeft > 0) return consumed;
      this.#publish();
    }
  }

  #publish(): void {
    this.#output.publish(this.#used);
    this.#slot = this.#output.slot();
    this.#used = 0;
  }

  /** Zeros behind the last gzip member, as tapes have them, are none of the layer's. */
  #checkPadding(input: Uint8Array): void {
    this.#offset += input.length;
    if (this.#compression === 'gzip' && input.every((byte) => byte === 0)) return;
    throw this.#fault('bytes behind its end');
  }

  #fault(why: string): OpError {
    const at = this.#offset;
    return new OpError('DataLoss', `${this.#compression} stream, near byte ${at}: ${why}`);
  }
}

function partsOf(stream: object): { handle: ZlibHandle; left: Uint32Array } {
  const handle: unknown = Reflect.get(stream, '_handle');
  const left: unknown = Reflect.get(stream, '_writeState');
  if (!isHandle(handle) || !(left instanceof Uint32Array)) {
    throw new Error(`node:zlib of ${process.version} is another one than we know`);
  }
  return { handle, left };
}

const isHandle = (value: unknown): value is ZlibHandle =>
  typeof value === 'object' && value !== null && 'writeSync' in value && 'onerror' in value;
