import { unlessAborted } from '../base/abort.ts';
import type { SnapshotDriver } from './driver.ts';

/** How many ids one job of the worker removes: what a cancelled or stuck one holds up. */
const IDS_PER_JOB = 64;

/**
 * Removes what removed snapshots left on disk, after the answer. It lives in memory: what a crash
 * leaves is on disk without metadata, and start-up throws that away again.
 */
export class Trash implements AsyncDisposable {
  readonly #driver: SnapshotDriver;
  readonly #warn: (fields: Record<string, unknown>, message: string) => void;
  readonly #closing = new AbortController();
  #waiting: string[] = [];
  #emptying: Promise<void> | undefined;
  /** Ids that could not be removed; tried again at the next Cleanup. */
  #failed = new Map<string, unknown>();

  constructor(driver: SnapshotDriver, warn: Trash['warn']) {
    this.#driver = driver;
    this.#warn = warn;
  }

  get warn(): (fields: Record<string, unknown>, message: string) => void {
    return this.#warn;
  }

  throwAway(id: string): void {
    this.#waiting.push(id);
    this.#emptying ??= this.#empty();
  }

  /**
   * Resolves when everything thrown away before the call is gone.
   * @throws what kept an id from being removed, and the signal's reason when it is aborted first
   */
  async emptied(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    for (const id of this.#failed.keys()) this.throwAway(id);
    this.#failed.clear();
    await unlessAborted(signal, this.#emptying ?? Promise.resolve());
    for (const error of this.#failed.values()) throw error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#emptying;
  }

  async #empty(): Promise<void> {
    // One turn later, so that removals which come together are one job.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#waiting.length > 0 && !this.#closing.signal.aborted) {
      const ids = this.#waiting.splice(0, IDS_PER_JOB);
      try {
        await this.#driver.discard(ids, this.#closing.signal);
      } catch (error) {
        if (this.#closing.signal.aborted) break;
        for (const id of ids) this.#failed.set(id, error);
        this.#warn(
          { ids, error },
          'removed snapshots are still on disk; the next Cleanup tries again',
        );
      }
    }
    this.#emptying = undefined;
  }
}
