import type { RequestContext } from '../../base/context.ts';
import type { Gc } from '../../gc/gc.ts';
import { explanationToWire, planToWire, totalsToWire } from '../convert/gc.ts';
import { ballast, google } from '../gen/wire.js';
import { serverStream, unary, type Service } from '../service.ts';

const { v1 } = ballast;
const { Empty } = google.protobuf;

export function gcService(gc: Gc): Service {
  return {
    name: 'ballast.v1.GC',
    methods: {
      Why: serverStream(v1.WhyRequest, v1.WhyResponse, (ctx, { name }) => explained(gc, ctx, name)),
      Plan: serverStream(v1.PlanRequest, v1.PlanResponse, (ctx, { without }) =>
        planned(gc, ctx, without),
      ),
      Run: unary(Empty, v1.RunResponse, async (ctx) => {
        const { totals, elapsedMs, busyMs, longestMs } = await gc.run(ctx);
        return { totals: totalsToWire(totals), elapsedMs, busyMs, longestMs };
      }),
    },
  };
}

async function* explained(
  gc: Gc,
  ctx: RequestContext,
  name: string,
): AsyncIterable<ballast.v1.WhyResponse.$Properties> {
  for await (const explanation of gc.why(ctx, name)) yield explanationToWire(explanation);
}

async function* planned(
  gc: Gc,
  ctx: RequestContext,
  without: readonly string[],
): AsyncIterable<ballast.v1.PlanResponse.$Properties> {
  for await (const part of gc.plan(ctx, without)) yield planToWire(part);
}
