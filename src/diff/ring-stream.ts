import { OpError } from '../base/errors.ts';
import {
  abandoned,
  ABANDONED,
  ENDED,
  FILLED,
  FREED,
  LENGTHS,
  OPEN,
  RingEnd,
  RingWriter,
  SIGNAL,
  STATE,
  type Ring,
} from './apply/ring.ts';

/**
 * Bytes out of a ring for a thread that may not block. A chunk is the writer's again when the next one
 * is asked for.
 * @throws OpError Canceled: the ring was abandoned; Aborted: the writer failed, after all it had published
 */
export async function* chunksOf(ring: Ring): AsyncIterable<Uint8Array> {
  const end = new AsyncRingReader(ring);
  for (let chunk = await end.next(); chunk !== undefined; chunk = await end.next()) {
    yield chunk;
    end.giveBack();
  }
}

/**
 * Puts bytes into a ring from a thread that may not block, and ends it; as failed where they fail.
 * @throws OpError Canceled: the ring was abandoned; whatever `chunks` throws
 */
export async function pourInto(ring: Ring, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const end = new AsyncRingWriter(ring);
  try {
    for await (const chunk of chunks) await end.write(chunk);
    end.end();
  } catch (error) {
    end.fail();
    throw error;
  }
}

class AsyncRingReader extends RingEnd {
  #freed = 0;

  async next(): Promise<Uint8Array | undefined> {
    const { words } = this;
    const isFilled = (): boolean => Atomics.load(words, FILLED) !== this.#freed;
    await until(words, () => isFilled() || Atomics.load(words, STATE) !== OPEN);
    if (isFilled()) {
      return this.memory(this.#freed, Atomics.load(words, LENGTHS + this.slotOf(this.#freed)));
    }
    if (Atomics.load(words, STATE) === ENDED) return undefined;
    throw new OpError('Aborted', 'what the bytes come from failed');
  }

  giveBack(): void {
    this.#freed = (this.#freed + 1) | 0;
    this.set(FREED, this.#freed);
  }
}

class AsyncRingWriter extends RingWriter {
  async write(chunk: Uint8Array): Promise<void> {
    for (let rest = chunk; rest.length > 0;) {
      const filled = Atomics.load(this.words, FILLED);
      await until(this.words, () => filled - Atomics.load(this.words, FREED) < this.slots);
      const slot = this.slot();
      const part = rest.subarray(0, slot.length);
      slot.set(part);
      this.publish(part.length);
      rest = rest.subarray(part.length);
    }
  }
}

/** As a blocking end waits, but for the event loop: the signal is read before the condition. */
async function until(words: Int32Array<SharedArrayBuffer>, isMet: () => boolean): Promise<void> {
  for (;;) {
    const seen = Atomics.load(words, SIGNAL);
    if (Atomics.load(words, STATE) === ABANDONED) throw abandoned();
    if (isMet()) return;
    await Atomics.waitAsync(words, SIGNAL, seen).value;
  }
}
