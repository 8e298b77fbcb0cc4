import type { DriverDependencies } from './driver.ts';

interface LeftoversOptions {
  /** Absent is fine. */
  readonly remove: (paths: readonly string[], signal: AbortSignal) => Promise<void>;
  readonly warn: DriverDependencies['warn'];
}

/** While there are more Commits: so that those of some time are one job, which none of them waits behind. */
const WAIT_MS = 20;

/**
 * Removes what a Commit leaves beside the directory that counts, after its answer. It lives in memory:
 * start-up finds it again.
 */
export class Leftovers implements AsyncDisposable {
  readonly #options: LeftoversOptions;
  readonly #closing = new AbortController();
  #paths: string[] = [];
  #timer: NodeJS.Timeout | undefined;
  #removing: Promise<void> = Promise.resolve();

  constructor(options: LeftoversOptions) {
    this.#options = options;
  }

  /** @param busy there are more to come soon */
  add(path: string, busy: boolean): void {
    this.#paths.push(path);
    if (busy) this.#timer ??= setTimeout(() => this.#start(), WAIT_MS).unref();
    else this.#start();
  }

  /** Resolves when those added so far are gone, or could not go. */
  async removed(): Promise<void> {
    this.#start();
    await this.#removing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer);
    this.#closing.abort();
    await this.#removing;
  }

  #start(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#removing = this.#removing.then(() => this.#remove());
  }

  async #remove(): Promise<void> {
    const { remove, warn } = this.#options;
    const { signal } = this.#closing;
    const paths = this.#paths.splice(0);
    if (paths.length === 0 || signal.aborted) return;
    try {
      await remove(paths, signal);
    } catch (error) {
      if (signal.aborted) return;
      warn(
        { paths, error },
        'what Commits need no more is still on disk; the next start removes it',
      );
    }
  }
}
