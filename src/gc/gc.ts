import type { RequestContext } from '../base/context.ts';

/** What a run came to. */
export interface RunSummary {
  /** How many have gone, by their type. */
  readonly removed: ReadonlyMap<string, number>;
  /** How long the run had the event loop, all its slices together, in milliseconds. */
  readonly busyMs: number;
}

/** The collection, for whoever asks about it. */
export interface Gc {
  /**
   * Resolves when a run that began after the call has ended.
   * @throws OpError FailedPrecondition when nothing is collected here, and why
   */
  run(ctx: RequestContext): Promise<RunSummary>;
}
