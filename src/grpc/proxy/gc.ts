import type { RequestContext } from '../../base/context.ts';
import type { Explanation, Gc, PlanPart, RunSummary } from '../../gc/gc.ts';
import { explanationFromWire, planFromWire, totalsFromWire } from '../convert/gc.ts';
import { ballast, google } from '../gen/wire.js';
import type { Calls } from './calls.ts';

const { v1 } = ballast;

const WHY = { path: '/ballast.v1.GC/Why', request: v1.WhyRequest, response: v1.WhyResponse };
const PLAN = { path: '/ballast.v1.GC/Plan', request: v1.PlanRequest, response: v1.PlanResponse };
const RUN = {
  path: '/ballast.v1.GC/Run',
  request: google.protobuf.Empty,
  response: v1.RunResponse,
};

/** The collection of a daemon. The connection belongs to who made it. */
export class GcProxy implements Gc {
  readonly #calls: Calls;

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  async *why(ctx: RequestContext, name: string): AsyncIterable<Explanation> {
    for await (const response of this.#calls.serverStream(ctx, WHY, { name })) {
      yield explanationFromWire(response);
    }
  }

  async *plan(ctx: RequestContext, without: readonly string[]): AsyncIterable<PlanPart> {
    for await (const response of this.#calls.serverStream(ctx, PLAN, { without: [...without] })) {
      yield planFromWire(response);
    }
  }

  async run(ctx: RequestContext): Promise<RunSummary> {
    const { totals, elapsedMs, busyMs, longestMs } = await this.#calls.unary(ctx, RUN, {});
    return { totals: totalsFromWire(totals), elapsedMs, busyMs, longestMs };
  }
}
