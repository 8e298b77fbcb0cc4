import type { JobMap, Jobs } from './protocol.ts';
import { Thread } from './thread.ts';

/**
 * A thread costs ten megabytes, and short jobs take turns well. Beyond this, a job waits a moment for
 * a thread to come free before another one is made: only long or stuck jobs make it wait longer.
 */
const MADE_AT_ONCE = 1;
const WAIT_MS = 2;

/** Starting one takes 30 ms or more, which somebody waits for: the last one stays that much longer. */
const LAST_STAYS_TIMES = 30;

interface IdleThread<Map extends Jobs<Map>> {
  readonly thread: Thread<Map>;
  readonly since: number;
}

interface Waiter<Map extends Jobs<Map>> {
  readonly take: (thread: Thread<Map>) => void;
  readonly timer: NodeJS.Timeout;
}

/** Threads that do one job at a time; made when the others are busy, ended when idle for a while. */
export class Threads<Map extends Jobs<Map> = JobMap> implements AsyncDisposable {
  readonly #entry: string;
  readonly #idleMs: number;
  /** The latest first in use again: what is not needed grows old at the front. */
  readonly #idle: IdleThread<Map>[] = [];
  readonly #waiting = new Set<Waiter<Map>>();
  /** Threads that do not run yet, for whoever waits then. */
  readonly #starting = new Set<Promise<void>>();
  #made = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: { readonly entry: string; readonly idleMs: number }) {
    this.#entry = options.entry;
    this.#idleMs = options.idleMs;
  }

  /** Runs `job` with a thread that nobody else uses until it settles. */
  async use<T>(job: (thread: Thread<Map>) => Promise<T>): Promise<T> {
    const thread = this.#idle.pop()?.thread ?? (await this.#takeNext());
    try {
      return await job(thread);
    } finally {
      this.#giveBack(thread);
    }
  }

  /** Jobs must have ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#starting);
    clearTimeout(this.#timer);
    await Promise.all(this.#idle.splice(0).map(({ thread }) => thread.close()));
  }

  #takeNext(): Promise<Thread<Map>> | Thread<Map> {
    if (this.#made < MADE_AT_ONCE) return this.#make();
    return new Promise((resolve) => {
      // The job takes whichever comes first, the new thread or one of the others.
      const timer = setTimeout(() => {
        void this.#makeBeside();
      }, WAIT_MS);
      const waiter: Waiter<Map> = { take: resolve, timer };
      this.#waiting.add(waiter);
    });
  }

  async #makeBeside(): Promise<void> {
    const thread = this.#make();
    this.#starting.add(thread.started);
    await thread.started;
    this.#starting.delete(thread.started);
    this.#giveBack(thread);
  }

  #make(): Thread<Map> {
    this.#made++;
    return new Thread(this.#entry);
  }

  #giveBack(thread: Thread<Map>): void {
    const [waiter] = this.#waiting;
    if (waiter !== undefined) {
      this.#waiting.delete(waiter);
      clearTimeout(waiter.timer);
      waiter.take(thread);
      return;
    }
    this.#idle.push({ thread, since: performance.now() });
    this.#timer ??= setTimeout(() => this.#endIdle(), this.#idleMs).unref();
  }

  #endIdle(): void {
    const now = performance.now();
    for (;;) {
      const oldest = this.#idle[0];
      this.#timer = undefined;
      if (oldest === undefined) return;
      const staysMs = this.#made === 1 ? this.#idleMs * LAST_STAYS_TIMES : this.#idleMs;
      const dueMs = oldest.since + staysMs - now;
      if (dueMs > 0) {
        this.#timer = setTimeout(() => this.#endIdle(), dueMs + 1).unref();
        return;
      }
      this.#idle.shift();
      this.#made--;
      void oldest.thread.close();
    }
  }
}
