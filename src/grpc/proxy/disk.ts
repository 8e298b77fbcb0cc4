import type { RequestContext } from '../../base/context.ts';
import type { Disk, DiskUsage, Identity, Place, Question } from '../../disk/disk.ts';
import { identityFromWire, placeFromWire, usageFromWire } from '../convert/disk.ts';
import { ballast } from '../gen/wire.js';
import type { Calls } from './calls.ts';

const { v1 } = ballast;

const USAGE = {
  path: '/ballast.v1.Disk/Usage',
  request: v1.UsageRequest,
  response: v1.UsageResponse,
};
const WHO_IS = {
  path: '/ballast.v1.Disk/WhoIs',
  request: v1.WhoIsRequest,
  response: v1.WhoIsResponse,
};
const WHERE = {
  path: '/ballast.v1.Disk/Where',
  request: v1.WhereRequest,
  response: v1.WhereResponse,
};

/** The disk of a daemon. The connection belongs to who made it. */
export class DiskProxy implements Disk {
  readonly #calls: Calls;

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  async usage(ctx: RequestContext, { verbose }: { verbose: boolean }): Promise<DiskUsage> {
    return usageFromWire(await this.#calls.unary(ctx, USAGE, { verbose }));
  }

  async whoIs(ctx: RequestContext, question: Question): Promise<readonly Identity[]> {
    const request = 'id' in question ? { id: question.id } : { paths: [...question.paths] };
    const { identities } = await this.#calls.unary(ctx, WHO_IS, request);
    return identities.map(identityFromWire);
  }

  async where(ctx: RequestContext, name: string): Promise<readonly Place[]> {
    const { places } = await this.#calls.unary(ctx, WHERE, { name });
    return places.map(placeFromWire);
  }
}
