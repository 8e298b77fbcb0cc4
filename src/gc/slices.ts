/** So long the event loop belongs to a collection before others have their turn. */
const SLICE_MS = 2;
/** Steps between two looks at the time; one takes some microseconds. */
const STEPS_PER_LOOK = 4;

/** How it goes on. */
export interface Pace {
  /** Called with each slice's length, in milliseconds. */
  readonly ended?: (ms: number) => void;
  readonly signal?: AbortSignal;
}

/** The event loop belongs to a collection from now on, until this is disposed. */
export function slice({ ended }: Pace): Disposable & { isOver(): boolean } {
  const start = performance.now();
  return {
    isOver: () => performance.now() - start >= SLICE_MS,
    [Symbol.dispose]: () => ended?.(performance.now() - start),
  };
}

/**
 * Goes on until a step says that nothing is left, in slices between which others have their turn.
 * @throws what its signal was aborted with
 */
export async function inSlices(step: () => boolean, pace: Pace = {}): Promise<void> {
  for (;;) {
    pace.signal?.throwIfAborted();
    if (!takeSlice(step, pace)) return;
    await nextTurn();
  }
}

/** @returns whether there is more */
function takeSlice(step: () => boolean, pace: Pace): boolean {
  using current = slice(pace);
  let more = true;
  while (more && !current.isOver()) {
    for (let n = 0; more && n < STEPS_PER_LOOK; n++) more = step();
  }
  return more;
}

/** Others have theirs first. */
export const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** The same for work that waits for other things too: it says itself when a step is done. */
export class Turns {
  readonly #signal: AbortSignal;
  #start = performance.now();
  #steps = 0;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** Called after each step; resolves at once, or in a later turn. @throws what the signal was aborted with */
  step(): Promise<void> | undefined {
    if (++this.#steps % STEPS_PER_LOOK !== 0 || performance.now() - this.#start < SLICE_MS) {
      return undefined;
    }
    return this.#nextTurn();
  }

  async #nextTurn(): Promise<void> {
    await nextTurn();
    this.#signal.throwIfAborted();
    this.#start = performance.now();
  }
}
