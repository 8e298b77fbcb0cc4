import { Thread } from './thread.ts';

interface IdleThread {
  readonly thread: Thread;
  readonly since: number;
}

/** Threads that do one job at a time; made when all others are busy, ended when idle for a while. */
export class Threads implements AsyncDisposable {
  readonly #entry: string;
  readonly #idleMs: number;
  /** The latest first in use again: what is not needed grows old at the front. */
  readonly #idle: IdleThread[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(options: { readonly entry: string; readonly idleMs: number }) {
    this.#entry = options.entry;
    this.#idleMs = options.idleMs;
  }

  /** Runs `job` with a thread that nobody else uses until it settles. */
  async use<T>(job: (thread: Thread) => Promise<T>): Promise<T> {
    const thread = this.#idle.pop()?.thread ?? new Thread(this.#entry);
    try {
      return await job(thread);
    } finally {
      this.#idle.push({ thread, since: performance.now() });
      this.#timer ??= setTimeout(() => this.#endIdle(), this.#idleMs).unref();
    }
  }

  /** Jobs must have ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer);
    await Promise.all(this.#idle.splice(0).map(({ thread }) => thread.close()));
  }

  #endIdle(): void {
    const now = performance.now();
    while (now - (this.#idle[0]?.since ?? now) >= this.#idleMs)
      void this.#idle.shift()?.thread.close();
    const next = this.#idle[0];
    this.#timer =
      next && setTimeout(() => this.#endIdle(), next.since + this.#idleMs - now + 1).unref();
  }
}
