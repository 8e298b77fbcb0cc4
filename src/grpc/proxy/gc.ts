import type { RequestContext } from '../../base/context.ts';
import type { Gc, RunSummary } from '../../gc/gc.ts';
import { ballast, google } from '../gen/wire.js';
import type { Calls } from './calls.ts';

const { v1 } = ballast;

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

  async run(ctx: RequestContext): Promise<RunSummary> {
    const { removed, busyMs } = await this.#calls.unary(ctx, RUN, {});
    return {
      removed: new Map(removed.map(({ type, count }) => [type ?? '', count ?? 0])),
      busyMs,
    };
  }
}
