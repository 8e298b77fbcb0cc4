import type { Clock } from '../base/clock.ts';
import type { WriteTx } from '../metadata/metadata.ts';
import type { Log } from '../base/log.ts';
import type { Collector, RunResult } from './collector.ts';
import type { GcNotes, GcRuns, Node } from './collectible.ts';
import { endOf } from './mark.ts';

/** As containerd's; times in milliseconds. */
export interface GcConfig {
  /** The part of time that scheduled runs may take, at most one half. */
  readonly pauseThreshold: number;
  /** So many removals bring about a run at once; 0: any removal does, when none is planned. */
  readonly deletionThreshold: number;
  /** So many changes bring about a run; 0: changes alone never do. */
  readonly mutationThreshold: number;
  readonly scheduleDelayMs: number;
  /** 0: no run at start-up. */
  readonly startupDelayMs: number;
}

export const GC_DEFAULTS: GcConfig = {
  pauseThreshold: 0.02,
  deletionThreshold: 0,
  mutationThreshold: 100,
  scheduleDelayMs: 0,
  startupDelayMs: 100,
};

const PAUSE_MAX = 0.5;
/** What a run is taken to need at least, so that the next one is not planned at once. */
const RUN_MS_MIN = 5;
/** Between runs where no part of the time was set. */
const INTERVAL_MS = 1000;
/** Node's timers end at 2^31 - 1 ms. */
const TIMER_MS_MAX = 2 ** 31 - 1;

export interface SchedulerDependencies {
  readonly collector: Collector;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * When a run begins: some time after start-up; when enough was changed or removed, at intervals that
 * leave the daemon to its requests; at once when a request waits for it; and when something expires.
 * An idle daemon has one timer at most, for the next expiry.
 * @see containerd, plugins/gc/scheduler.go
 */
export class Scheduler implements GcNotes, GcRuns, AsyncDisposable {
  readonly #config: GcConfig;
  readonly #dependencies: SchedulerDependencies;
  #started = false;
  #stopped = false;
  #running: Promise<void> | undefined;
  /** Who waits for a run that has not begun. */
  #waiting: PromiseWithResolvers<RunResult | undefined> | undefined;
  /** One of those asked for a run itself, and for what it comes to. */
  #isAskedFor = false;
  #planned: { readonly at: number; readonly timer: NodeJS.Timeout } | undefined;
  #expiry: { readonly end: bigint; readonly timer: NodeJS.Timeout } | undefined;
  /** Since the last run began. */
  #hasExpired = false;
  #mutations = 0;
  #deletions = 0;
  #runs = 0;
  #busyMs = 0;
  /** On the monotonic clock: before it, changes alone bring about no run. */
  #restsUntil = 0;

  constructor(config: GcConfig, dependencies: SchedulerDependencies) {
    this.#config = config;
    this.#dependencies = dependencies;
  }

  /** Records and disk agree: runs may begin. */
  start(): void {
    this.#started = true;
    this.#restsUntil = performance.now() + this.#intervalMs();
    this.#consider();
    if (this.#config.startupDelayMs > 0) this.#runIn(this.#config.startupDelayMs);
  }

  touch(node: Node, tx?: WriteTx): void {
    const { collector } = this.#dependencies;
    collector.touch(node);
    this.#abandonAtRollback(tx);
    const vertex = collector.find(node);
    const end = vertex === undefined ? undefined : endOf(vertex.root, vertex.labels);
    if (end !== undefined) this.#expect(end);
    this.#mutations++;
    this.#consider();
  }

  hold(node: Node): Disposable {
    return this.#dependencies.collector.hold(node);
  }

  freed(tx?: WriteTx): void {
    this.#abandonAtRollback(tx);
    this.#mutations++;
    this.#deletions++;
    this.#consider();
  }

  /**
   * @param isAskedFor whether somebody wants a run as such: it begins at once, and says how much goes from the disk
   * @returns undefined when no run begins any more
   */
  async collect(isAskedFor = false): Promise<RunResult | undefined> {
    if (this.#stopped) return undefined;
    this.#waiting ??= Promise.withResolvers<RunResult | undefined>();
    this.#isAskedFor ||= isAskedFor;
    this.#consider();
    return this.#waiting.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#planned?.timer);
    clearTimeout(this.#expiry?.timer);
    this.#dependencies.collector.abandon();
    await this.#running;
    this.#waiting?.resolve(undefined);
  }

  /** A change that throws is taken back in its own turn: no run has seen it. */
  #abandonAtRollback(tx: WriteTx | undefined): void {
    if (tx === undefined) return;
    let wasSeen = false;
    queueMicrotask(() => {
      wasSeen = true;
    });
    tx.onRollback(() => {
      if (wasSeen) this.#dependencies.collector.abandon();
    });
  }

  /** Something is different now: is a run due, and when? */
  #consider(): void {
    const inMs = this.#dueInMs();
    if (inMs !== undefined) this.#runIn(inMs);
  }

  #dueInMs(): number | undefined {
    const { deletionThreshold, mutationThreshold, scheduleDelayMs } = this.#config;
    if (this.#isAskedFor) return 0;
    const isWanted =
      this.#hasExpired ||
      this.#waiting !== undefined ||
      (deletionThreshold > 0 && this.#deletions >= deletionThreshold);
    if (isWanted) return scheduleDelayMs;
    const isChanged = mutationThreshold > 0 && this.#mutations >= mutationThreshold;
    if (this.#deletions === 0 && !isChanged) return undefined;
    return Math.max(scheduleDelayMs, this.#restsUntil - performance.now());
  }

  /** Unless one begins earlier anyway; the end of one that is under way asks again. */
  #runIn(ms: number): void {
    if (!this.#started || this.#stopped || this.#running !== undefined) return;
    const at = performance.now() + ms;
    if (this.#planned !== undefined && this.#planned.at <= at) return;
    clearTimeout(this.#planned?.timer);
    const timer = setTimeout(() => this.#begin(), Math.min(ms, TIMER_MS_MAX));
    this.#planned = { at, timer };
  }

  #begin(): void {
    this.#planned = undefined;
    this.#running = this.#run().finally(() => {
      this.#running = undefined;
      this.#consider();
    });
  }

  async #run(): Promise<void> {
    const waiting = this.#waiting;
    const isWeighed = this.#isAskedFor;
    const { collector, log } = this.#dependencies;
    this.#waiting = undefined;
    this.#isAskedFor = false;
    this.#hasExpired = false;
    this.#mutations = 0;
    this.#deletions = 0;
    clearTimeout(this.#expiry?.timer);
    this.#expiry = undefined;
    try {
      const result = await collector.run(isWeighed);
      const { removed, busyMs, longestMs, nextExpiry } = result;
      log.debug({ removed: removed.length, busyMs, longestMs }, 'collected');
      this.#busyMs += busyMs;
      this.#runs++;
      if (nextExpiry !== undefined) this.#expect(nextExpiry);
      waiting?.resolve(result);
    } catch (error) {
      if (!this.#stopped) log.warn({ error }, 'collection failed; it is tried again later');
      this.#deletions++;
      waiting?.reject(error);
    }
    this.#restsUntil = performance.now() + this.#intervalMs();
  }

  /** So long that runs take no more than their part of the time. */
  #intervalMs(): number {
    const part = Math.min(this.#config.pauseThreshold, PAUSE_MAX);
    if (part <= 0) return INTERVAL_MS;
    const average = Math.max(this.#busyMs / Math.max(this.#runs, 1), RUN_MS_MIN);
    return average / part - average;
  }

  /** One timer, for whatever expires first. */
  #expect(end: bigint): void {
    if (this.#stopped || (this.#expiry !== undefined && this.#expiry.end <= end)) return;
    clearTimeout(this.#expiry?.timer);
    // The moment itself still belongs to it; and a timer may be early against the clock.
    const ms = Number((end - this.#dependencies.clock.now()) / 1_000_000n) + 2;
    const timer = setTimeout(() => this.#expired(end), Math.min(Math.max(ms, 0), TIMER_MS_MAX));
    this.#expiry = { end, timer };
  }

  #expired(end: bigint): void {
    this.#expiry = undefined;
    if (this.#dependencies.clock.now() <= end) return this.#expect(end);
    this.#hasExpired = true;
    this.#consider();
  }
}
