import { canceled } from './cancellation.ts';

export interface LaneLimits {
  /** Jobs at work as long as all of them get on. */
  readonly parallel: number;
  /** A job that takes longer may be stuck on a dead disk: another one starts beside it. Or Infinity. */
  readonly slowMs: number;
  /** Never more than this, however slow. */
  readonly parallelMax: number;
}

interface Running {
  readonly startedAt: number;
  slow: boolean;
}

/** Lets jobs of one kind start in order, few at a time, without letting a stuck one stop the rest. */
export class Lane {
  readonly #limits: LaneLimits;
  readonly #running = new Set<Running>();
  /** Each starts its job. */
  readonly #waiting = new Set<() => void>();
  #timer: NodeJS.Timeout | undefined;

  constructor(limits: LaneLimits) {
    this.#limits = limits;
  }

  /**
   * Runs `job` when it is its turn.
   * @throws OpError Canceled when the signal comes before that; later, `job` has to heed it
   */
  run<T>(what: string, signal: AbortSignal | undefined, job: () => Promise<T>): Promise<T> {
    if (signal?.aborted === true) return Promise.reject(canceled(what));
    return new Promise<T>((resolve, reject) => {
      const start = (): void => {
        signal?.removeEventListener('abort', giveUp);
        resolve(this.#work(job));
      };
      const giveUp = (): void => {
        this.#waiting.delete(start);
        reject(canceled(what));
      };
      signal?.addEventListener('abort', giveUp, { once: true });
      this.#waiting.add(start);
      this.#startWaiting();
    });
  }

  async #work<T>(job: () => Promise<T>): Promise<T> {
    const running = { startedAt: performance.now(), slow: false };
    this.#running.add(running);
    try {
      return await job();
    } finally {
      this.#running.delete(running);
      this.#startWaiting();
    }
  }

  #startWaiting(): void {
    for (const start of this.#waiting) {
      if (!this.#hasRoom()) break;
      this.#waiting.delete(start);
      start();
    }
    this.#watch();
  }

  #hasRoom(): boolean {
    let brisk = 0;
    for (const job of this.#running) if (!job.slow) brisk++;
    return brisk < this.#limits.parallel && this.#running.size < this.#limits.parallelMax;
  }

  /** While someone waits, wakes up when the oldest job at work becomes a slow one. */
  #watch(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#waiting.size === 0 || this.#limits.slowMs === Infinity) return;
    const oldest = this.#running.values().find((job) => !job.slow);
    if (oldest === undefined) return;
    const dueMs = oldest.startedAt + this.#limits.slowMs - performance.now();
    this.#timer = setTimeout(
      () => {
        oldest.slow = true;
        this.#startWaiting();
      },
      Math.max(dueMs, 0),
    );
  }
}

/** Lanes that must not wait for each other, such as those of several disks, by name. */
export class LanesByName {
  readonly #limits: LaneLimits;
  readonly #lanes = new Map<string, { readonly lane: Lane; jobs: number }>();

  constructor(limits: LaneLimits) {
    this.#limits = limits;
  }

  /** As Lane.run. */
  async run<T>(
    name: string,
    what: string,
    signal: AbortSignal | undefined,
    job: () => Promise<T>,
  ): Promise<T> {
    const entry = this.#lanes.get(name) ?? { lane: new Lane(this.#limits), jobs: 0 };
    this.#lanes.set(name, entry);
    entry.jobs++;
    try {
      return await entry.lane.run(what, signal, job);
    } finally {
      if (--entry.jobs === 0) this.#lanes.delete(name);
    }
  }
}
