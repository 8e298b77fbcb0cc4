import { unlessAborted } from '../base/abort.ts';
import type { Clock } from '../base/clock.ts';
import type { RequestContext } from '../base/context.ts';
import { OpError } from '../base/errors.ts';
import { requireNamespace } from '../base/identifiers.ts';
import type { Collector, RunResult } from './collector.ts';
import type { Explanation, Gc, PlanPart, RunSummary, Totals } from './gc.ts';
import { named } from './named.ts';
import { plan } from './plan.ts';
import type { Scheduler } from './scheduler.ts';
import { Tally } from './tally.ts';
import { chainsTo } from './why.ts';

interface Dependencies {
  readonly collector: Collector;
  readonly scheduler: Scheduler;
  readonly clock: Clock;
  /** Records and disk agree. It rejects when nothing is collected, and says why. */
  readonly ready: Promise<void>;
}

/** What the collection of this daemon says of itself. */
export class LocalGc implements Gc {
  readonly #dependencies: Dependencies;
  readonly #now: () => bigint;

  constructor(dependencies: Dependencies) {
    this.#dependencies = dependencies;
    this.#now = () => dependencies.clock.now();
  }

  async *why(ctx: RequestContext, name: string): AsyncIterable<Explanation> {
    const namespace = requireNamespace(ctx);
    const collector = await this.#ready(ctx);
    const { signal } = ctx;
    for (const node of await named(collector, namespace, name, { signal })) {
      const chains = await chainsTo(node, collector, { now: this.#now, signal });
      const made = collector.find(node)?.createdAt;
      // It was removed meanwhile.
      if (made === undefined) continue;
      const kept = collector.lastRun ?? 0n;
      const notBefore = chains.length > 0 ? undefined : made > kept ? made : kept;
      yield { node, chains, notBefore, collector: '' };
    }
  }

  async *plan(ctx: RequestContext, without: readonly string[]): AsyncIterable<PlanPart> {
    const namespace = requireNamespace(ctx);
    const collector = await this.#ready(ctx);
    yield* plan(collector, { namespace, without, now: this.#now, pace: { signal: ctx.signal } });
  }

  async run(ctx: RequestContext): Promise<RunSummary> {
    await this.#ready(ctx);
    const { signal } = ctx;
    const result = await unlessAborted(signal, this.#dependencies.scheduler.collect(true));
    if (result === undefined) throw new OpError('Unavailable', 'the daemon is stopping');
    const { elapsedMs, busyMs, longestMs } = result;
    return { totals: totalsOf(result), elapsedMs, busyMs, longestMs };
  }

  async #ready({ signal }: RequestContext): Promise<Collector> {
    const { collector, ready } = this.#dependencies;
    await unlessAborted(signal, ready);
    return collector;
  }
}

function totalsOf({ removed, weights, swept }: RunResult): Totals {
  const tally = new Tally();
  const keys = new Set<string>();
  for (const node of removed) {
    tally.add(node.type, weights.get(node) ?? 0);
    keys.add(`${node.type} ${node.key}`);
  }
  // A blob goes from the disk with the last of its nodes, or after it had none already.
  for (const { type, key, bytes } of swept) {
    tally.add(type, bytes, keys.has(`${type} ${key}`) ? 0 : 1);
  }
  return tally.totals;
}
