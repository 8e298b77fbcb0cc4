import type { FileJobs } from '../../platform/platform.ts';
import type { DriverDependencies } from '../driver.ts';

interface LeftoversOptions {
  readonly folder: string;
  readonly jobs: FileJobs;
  readonly warn: DriverDependencies['warn'];
}

/**
 * Removes subvolumes that a Commit leaves beside the one that counts, behind its answer. It lives in
 * memory: start-up finds them again.
 */
export class Leftovers implements AsyncDisposable {
  readonly #options: LeftoversOptions;
  readonly #closing = new AbortController();
  #paths: string[] = [];
  #removing: Promise<void> | undefined;

  constructor(options: LeftoversOptions) {
    this.#options = options;
  }

  add(path: string): void {
    this.#paths.push(path);
    this.#removing ??= this.#remove();
  }

  /** Resolves when those added so far are gone, or could not go. */
  async removed(): Promise<void> {
    await this.#removing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#removing;
  }

  async #remove(): Promise<void> {
    const { folder, jobs, warn } = this.#options;
    const { signal } = this.#closing;
    // One turn later, so that Commits which come together are one job.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#paths.length > 0 && !signal.aborted) {
      const paths = this.#paths.splice(0);
      try {
        await jobs.subvolumes.remove(folder, paths, signal);
      } catch (error) {
        if (signal.aborted) break;
        warn({ paths, error }, 'subvolumes that are not needed any more are still there');
      }
    }
    this.#removing = undefined;
  }
}
