import { performance } from 'node:perf_hooks';

/** Nanoseconds since the Unix epoch. Clients compare our times with their own clock to the nanosecond. */
export interface Clock {
  now(): bigint;
}

/** How far the monotonic clock may drift from the wall clock before it is anchored anew. */
const STEP_MS = 2;

/**
 * The wall clock with sub-millisecond digits: Date.now() alone is truncated to milliseconds and would
 * put "created" before the call that made it. It is anchored again whenever the wall clock was stepped.
 */
export class SystemClock implements Clock {
  #origin = performance.timeOrigin;

  now(): bigint {
    let ms = this.#origin + performance.now();
    const wall = Date.now();
    if (ms < wall - STEP_MS || ms > wall + 1 + STEP_MS) {
      this.#origin += wall + 0.5 - ms;
      ms = wall + 0.5;
    }
    return BigInt(Math.round(ms * 1000)) * 1000n;
  }
}
