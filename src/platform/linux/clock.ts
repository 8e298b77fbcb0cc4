import type { Clock } from '../../base/clock.ts';
import { libc } from './ffi.ts';

const CLOCK_REALTIME = 0;

/**
 * The wall clock as every other process reads it. Node's own is cut to milliseconds, which would put
 * "created" before the call that made it; its monotonic one runs apart from the wall clock. clock_gettime(2)
 */
export class SystemClock implements Clock {
  /** struct timespec */
  readonly #time = new BigInt64Array(2);
  readonly #bytes = new Uint8Array(this.#time.buffer);

  now(): bigint {
    libc().clockGettime(CLOCK_REALTIME, this.#bytes);
    const [seconds = 0n, nanoseconds = 0n] = this.#time;
    return seconds * 1_000_000_000n + nanoseconds;
  }
}
