import { constants, createGunzip, createZstdDecompress } from 'node:zlib';
import { OpError } from '../../base/errors.ts';
import { isalGunzip, type IsalGunzip } from '../../platform/linux/isal.ts';

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

/** What inflates gzip: ISA-L where the system has it, which takes a quarter less time, or zlib. */
export const gunzip = (): Decoder => {
  const isal = isalGunzip();
  return isal === undefined ? zlibGunzip() : new IsalDecoder(isal);
};

export function makeInflater(compression: Compression, output: Output, decoder = gunzip): Inflater {
  switch (compression) {
    case 'none':
      return new Copier(output);
    case 'gzip':
      return new DecodingInflater(compression, decoder(), output);
    case 'zstd':
      return new DecodingInflater(compression, unzstd(), output);
  }
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

/** Inflates a stream piece by piece; many members or frames are one stream. */
interface Decoder {
  /** Inflates until the input or the room is used up, and nothing of what is behind the stream's end. */
  decode(input: Uint8Array, at: number, output: Uint8Array, used: number): void;
  /** After the last input. */
  end(output: Uint8Array, used: number): void;
  /** Of the last call. */
  readonly inputLeft: number;
  readonly outputLeft: number;
  /** What is wrong with the stream. */
  readonly failure: string | undefined;
}

class DecodingInflater implements Inflater {
  readonly #compression: 'gzip' | 'zstd';
  readonly #decoder: Decoder;
  readonly #output: Output;
  #slot: Uint8Array;
  /** Bytes in the slot. */
  #used = 0;
  /** Of the compressed stream. */
  #offset = 0;
  #ended = false;

  constructor(compression: 'gzip' | 'zstd', decoder: Decoder, output: Output) {
    this.#compression = compression;
    this.#decoder = decoder;
    this.#output = output;
    this.#slot = output.slot();
  }

  push(input: Uint8Array): void {
    for (let at = 0; at < input.length;) {
      if (this.#ended) return this.#checkPadding(input.subarray(at));
      const { consumed, made } = this.#decode(input, at);
      at += consumed;
      this.#offset += consumed;
      if (consumed === 0 && made === 0) this.#ended = true;
    }
  }

  finish(): void {
    while (this.#took(() => this.#decoder.end(this.#slot, this.#used)).isFull) this.#publish();
    if (this.#used > 0) this.#publish();
  }

  /** Until no more comes out for the input. */
  #decode(input: Uint8Array, start: number): { readonly consumed: number; readonly made: number } {
    let [at, made] = [start, 0];
    for (;;) {
      const from = at;
      const step = this.#took(() => this.#decoder.decode(input, from, this.#slot, this.#used));
      at = input.length - this.#decoder.inputLeft;
      made += step.made;
      if (!step.isFull) return { consumed: at - start, made };
      this.#publish();
    }
  }

  #took(step: () => void): { readonly made: number; readonly isFull: boolean } {
    step();
    const { failure, outputLeft } = this.#decoder;
    if (failure !== undefined) throw this.#fault(failure);
    const made = this.#slot.length - outputLeft - this.#used;
    this.#used += made;
    return { made, isFull: outputLeft === 0 };
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

export const zlibGunzip = (): Decoder => new ZlibDecoder(createGunzip(), constants.Z_FINISH);
const unzstd = (): Decoder =>
  new ZlibDecoder(
    createZstdDecompress({ params: { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG_MAX } }),
    constants.ZSTD_e_end,
  );

class ZlibDecoder implements Decoder {
  readonly #handle: ZlibHandle;
  /** Filled by each write: bytes left in the output, and in the input. */
  readonly #left: Uint32Array;
  /** Only this makes zlib tell of a stream that was cut off. */
  readonly #end: number;
  failure: string | undefined;

  constructor(stream: object, end: number) {
    ({ handle: this.#handle, left: this.#left } = partsOf(stream));
    this.#end = end;
    this.#handle.onerror = (message) => {
      this.failure ??= message;
    };
  }

  decode(input: Uint8Array, at: number, output: Uint8Array, used: number): void {
    this.#write(0, input, at, output, used);
  }

  end(output: Uint8Array, used: number): void {
    this.#write(this.#end, NONE, 0, output, used);
  }

  get outputLeft(): number {
    return this.#left[0] ?? 0;
  }

  get inputLeft(): number {
    return this.#left[1] ?? 0;
  }

  #write(flush: number, input: Uint8Array, at: number, output: Uint8Array, used: number): void {
    const [rest, space] = [input.length - at, output.length - used];
    this.#handle.writeSync(flush, input, at, rest, output, used, space);
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

/** By the number that ISA-L answers; igzip_lib.h. */
const ISAL_FAILURES: Readonly<Record<number, string>> = {
  [-1]: 'invalid block type',
  [-2]: 'invalid code',
  [-3]: 'invalid distance too far back',
  [-4]: 'incorrect header',
  [-5]: 'unknown compression method',
  [-6]: 'incorrect checksum',
};

class IsalDecoder implements Decoder {
  readonly #isal: IsalGunzip;
  failure: string | undefined;
  inputLeft = 0;
  outputLeft = 0;

  constructor(isal: IsalGunzip) {
    this.#isal = isal;
  }

  decode(input: Uint8Array, at: number, output: Uint8Array, used: number): void {
    this.inputLeft = input.length - at;
    this.outputLeft = output.length - used;
    while (this.failure === undefined && this.outputLeft > 0 && this.#begins(input)) {
      const [inputAt, outputAt] = [input.length - this.inputLeft, output.length - this.outputLeft];
      const result = this.#isal.inflate(input, inputAt, output, outputAt);
      if (result < 0) this.failure = ISAL_FAILURES[result] ?? `error ${result}`;
      const hasMoved =
        this.#isal.inputLeft !== this.inputLeft || this.#isal.outputLeft !== this.outputLeft;
      this.inputLeft = this.#isal.inputLeft;
      this.outputLeft = this.#isal.outputLeft;
      if (!hasMoved) return;
    }
  }

  end(output: Uint8Array, used: number): void {
    this.decode(NONE, 0, output, used);
    if (!this.#isal.isFinished && this.outputLeft > 0) this.failure ??= 'unexpected end of file';
  }

  /** Whether there is something to do: in a member, or a new one where bytes follow that are no padding. */
  #begins(input: Uint8Array): boolean {
    if (!this.#isal.isFinished) return true;
    const next = input[input.length - this.inputLeft];
    if (next === undefined || next === 0) return false;
    this.#isal.reset();
    return true;
  }
}
