import { OpError } from '../../base/errors.ts';

/** One side is ahead in large files, the other in small ones: 16 cost 3 % of the time, 128 gained as much again. */
const SLOTS = 64;
const SLOT_BYTES = 256 * 1024;

/** Words of the shared header: counters of slots filled and given back, how it stands, and a word to wait on. */
export const FILLED = 0;
export const FREED = 1;
export const STATE = 2;
export const SIGNAL = 3;
export const LENGTHS = 4;
const HEADER_BYTES = 4 * (LENGTHS + SLOTS);

/** Apart from the slots, so that an end never takes the place of bytes. */
export const OPEN = 0;
export const ENDED = 1;
/** The writer met an error: what was read so far is not all. */
const FAILED = 2;
/** Nobody reads on, or somebody gave up. */
export const ABANDONED = 3;

/** Bytes on their way from one thread to another: shared memory, to be given to both. */
export type Ring = SharedArrayBuffer;

/** `quarter`: for an image that has two, with more threads and more of its blobs on their way than one layer has. */
export type RingSize = 'whole' | 'quarter';

/** How long memory is kept for the next layer of an image. */
const IDLE_MS = 10_000;

/**
 * Where rings come from. Memory is used again: what is dropped stays with the process until the collector of every
 * thread that saw it has run, and clearing and mapping it anew takes its time.
 */
export class Rings {
  #idle: Ring[] = [];
  #timer: NodeJS.Timeout | undefined;

  take(size: RingSize = 'whole'): Ring {
    const bytes = HEADER_BYTES + (size === 'quarter' ? SLOTS / 4 : SLOTS) * SLOT_BYTES;
    const at = this.#idle.findLastIndex(({ byteLength }) => byteLength === bytes);
    const [ring] = at < 0 ? [] : this.#idle.splice(at, 1);
    if (ring === undefined) return new SharedArrayBuffer(bytes);
    new Int32Array(ring, 0, LENGTHS).fill(0);
    return ring;
  }

  /** Both ends are done with it. */
  giveBack(...rings: readonly Ring[]): void {
    this.#idle.push(...rings);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#idle = []), IDLE_MS).unref();
  }
}

/** Wakes both ends, which then fail as Canceled. Any thread may call it, at any time. */
export function abandonRing(ring: Ring): void {
  const words = new Int32Array(ring, 0, LENGTHS);
  Atomics.store(words, STATE, ABANDONED);
  signal(words);
}

export class RingEnd {
  protected readonly words: Int32Array<SharedArrayBuffer>;
  /** A power of two. */
  protected readonly slots: number;
  readonly #ring: Ring;

  constructor(ring: Ring) {
    this.#ring = ring;
    this.slots = (ring.byteLength - HEADER_BYTES) / SLOT_BYTES;
    this.words = new Int32Array(ring, 0, LENGTHS + SLOTS);
  }

  protected memory(count: number, length: number): Uint8Array {
    return new Uint8Array(this.#ring, HEADER_BYTES + this.slotOf(count) * SLOT_BYTES, length);
  }

  /** Counters wrap around. */
  protected slotOf(count: number): number {
    return count & (this.slots - 1);
  }

  /** Blocks the thread. The signal is read before the condition: a change in between is no wait. */
  protected waitUntil(isMet: () => boolean): void {
    for (;;) {
      const seen = Atomics.load(this.words, SIGNAL);
      if (Atomics.load(this.words, STATE) === ABANDONED) throw abandoned();
      if (isMet()) return;
      Atomics.wait(this.words, SIGNAL, seen);
    }
  }

  protected set(word: number, value: number): void {
    Atomics.store(this.words, word, value);
    signal(this.words);
  }
}

/** The end that bytes go in at. Its thread must be one that may block. */
export class RingWriter extends RingEnd {
  /** The next free slot's memory, waited for; filled from its start. @throws OpError Canceled */
  slot(): Uint8Array {
    const filled = Atomics.load(this.words, FILLED);
    this.waitUntil(() => filled - Atomics.load(this.words, FREED) < this.slots);
    return this.memory(filled, SLOT_BYTES);
  }

  /** Hands over the first `length` bytes of the slot. */
  publish(length: number): void {
    const filled = Atomics.load(this.words, FILLED);
    Atomics.store(this.words, LENGTHS + this.slotOf(filled), length);
    this.set(FILLED, (filled + 1) | 0);
  }

  /** All is there. */
  end(): void {
    this.#close(ENDED);
  }

  fail(): void {
    this.#close(FAILED);
  }

  #close(state: number): void {
    Atomics.compareExchange(this.words, STATE, OPEN, state);
    signal(this.words);
  }
}

/** The end that they come out of. Its thread must be one that may block. */
export class RingReader extends RingEnd {
  /**
   * Bytes, waited for; undefined after the last. The slot is the writer's again at the next call.
   * @throws OpError Canceled; Aborted where the writer failed, after all that it had published
   */
  *chunks(): Iterable<Uint8Array> {
    for (let freed = Atomics.load(this.words, FREED); ; freed = (freed + 1) | 0) {
      const isFilled = (): boolean => Atomics.load(this.words, FILLED) !== freed;
      const isClosed = (): boolean => Atomics.load(this.words, STATE) !== OPEN;
      this.waitUntil(() => isFilled() || isClosed());
      if (!isFilled()) return this.#finish();
      yield this.memory(freed, Atomics.load(this.words, LENGTHS + this.slotOf(freed)));
      this.set(FREED, (freed + 1) | 0);
    }
  }

  #finish(): void {
    if (Atomics.load(this.words, STATE) === ENDED) return;
    throw new OpError('Aborted', 'what the layer was read from failed');
  }
}

export const abandoned = (): OpError => new OpError('Canceled', 'the layer was given up');

function signal(words: Int32Array<SharedArrayBuffer>): void {
  Atomics.add(words, SIGNAL, 1);
  Atomics.notify(words, SIGNAL);
}
