/** So long the event loop belongs to a collection before others have their turn. */
const SLICE_MS = 2;
/** Steps between two looks at the time; one takes some microseconds. */
const STEPS_PER_LOOK = 16;

/** How it goes on. */
export interface Pace {
  /** Called with each slice's length, in milliseconds. */
  readonly ended?: (ms: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Goes on until a step says that nothing is left, in slices between which others have their turn.
 * @throws what its signal was aborted with
 */
export async function inSlices(step: () => boolean, { ended, signal }: Pace = {}): Promise<void> {
  for (;;) {
    signal?.throwIfAborted();
    const start = performance.now();
    let more = true;
    while (more && performance.now() - start < SLICE_MS) {
      for (let n = 0; more && n < STEPS_PER_LOOK; n++) more = step();
    }
    ended?.(performance.now() - start);
    if (!more) return;
    await nextTurn();
  }
}

/** Others have theirs first. */
export const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
