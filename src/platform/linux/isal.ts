import { gzipSync } from 'node:zlib';
import { loadLibrary, loadSystemLibrary, type Bytes } from './ffi.ts';

/** Where `struct inflate_state` of isa-l/igzip_lib.h has its fields, in the ABI of libisal.so.2. */
const STATE = {
  nextOut: 0,
  availableOut: 8,
  nextIn: 16,
  availableIn: 32,
  blockState: 21_160,
  crcFlag: 21_172,
  bytes: 87_368,
} as const;
/** ISAL_GZIP: headers are read, and checksums compared. */
const GZIP = 1;
/** ISAL_BLOCK_FINISH */
const FINISHED = 5;

interface Calls {
  init(state: Bytes): void;
  inflate(state: Bytes): number;
  /** memcpy(3), called for the address it returns. */
  addressOf(to: Bytes, from: Bytes, length: number): number | bigint;
}

/** Members of a gzip stream, one after another, inflated by Intel's ISA-L. */
export class IsalGunzip {
  readonly #calls: Calls;
  readonly #state = Buffer.alloc(STATE.bytes);

  constructor(calls: Calls) {
    this.#calls = calls;
    this.reset();
  }

  /** Before each member. */
  reset(): void {
    this.#calls.init(this.#state);
    this.#state.writeUInt32LE(GZIP, STATE.crcFlag);
  }

  /**
   * Goes on until the input or the room is used up, or the member ends.
   * @returns 0, or a negative number that says what is wrong
   */
  inflate(input: Uint8Array, at: number, output: Uint8Array, used: number): number {
    this.#point(STATE.nextIn, STATE.availableIn, input, at);
    this.#point(STATE.nextOut, STATE.availableOut, output, used);
    return this.#calls.inflate(this.#state);
  }

  /** Bytes of the last call's input that it left. */
  get inputLeft(): number {
    return this.#state.readUInt32LE(STATE.availableIn);
  }

  /** Bytes of the last call's output that are free. */
  get outputLeft(): number {
    return this.#state.readUInt32LE(STATE.availableOut);
  }

  /** The member is at its end, and all of it was handed out. */
  get isFinished(): boolean {
    return this.#state.readUInt32LE(STATE.blockState) === FINISHED;
  }

  #point(pointer: number, length: number, bytes: Uint8Array, at: number): void {
    const address = BigInt(this.#calls.addressOf(bytes, bytes, 0)) + BigInt(at);
    this.#state.writeBigUInt64LE(address, pointer);
    this.#state.writeUInt32LE(bytes.length - at, length);
  }
}

let calls: Calls | undefined | 'unknown' = 'unknown';

/** Undefined where the machine has no libisal, or another one than we know. */
export function isalGunzip(): IsalGunzip | undefined {
  if (calls === 'unknown') calls = load();
  return calls === undefined ? undefined : new IsalGunzip(calls);
}

function load(): Calls | undefined {
  const library = loadSystemLibrary('libisal.so.2');
  if (library === undefined) return undefined;
  const loaded: Calls = {
    init: library.func('void isal_inflate_init(void*)'),
    inflate: library.func('int isal_inflate(void*)'),
    addressOf: loadLibrary().func('uintptr_t memcpy(void*, void*, size_t)'),
  };
  return isAsKnown(new IsalGunzip(loaded)) ? loaded : undefined;
}

/** The structure is the one above: a member's end is seen, and not before. */
function isAsKnown(gunzip: IsalGunzip): boolean {
  const plain = Buffer.from('a layer, a layer');
  const [member, output] = [gzipSync(plain), Buffer.alloc(64)];
  const end = member.length - 1;
  const isFine = gunzip.inflate(member.subarray(0, end), 0, output, 0) === 0;
  if (!isFine || gunzip.inputLeft !== 0 || gunzip.isFinished) return false;
  const used = output.length - gunzip.outputLeft;
  const isOver = gunzip.inflate(member, end, output, used) === 0 && gunzip.isFinished;
  return isOver && output.subarray(0, output.length - gunzip.outputLeft).equals(plain);
}
