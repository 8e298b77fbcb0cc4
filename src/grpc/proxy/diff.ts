import type { RequestContext } from '../../base/context.ts';
import type { Applier, Descriptor } from '../../diff/diff.ts';
import type { Mount } from '../../snapshotters/snapshotter.ts';
import { descriptorFromWire, descriptorToWire } from '../convert/diff.ts';
import { mountsToWire } from '../convert/snapshots.ts';
import { containerd } from '../gen/wire.js';
import type { Calls } from './calls.ts';

const v1 = containerd.services.diff.v1;

const APPLY = {
  path: '/containerd.services.diff.v1.Diff/Apply',
  request: v1.ApplyRequest,
  response: v1.ApplyResponse,
};

/** A daemon's layer engine. */
export class DiffProxy implements Applier {
  readonly #calls: Calls;

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  async apply(
    ctx: RequestContext,
    layer: Descriptor,
    mounts: readonly Mount[],
  ): Promise<Descriptor> {
    const request = { diff: descriptorToWire(layer), mounts: mountsToWire(mounts) };
    const { applied } = await this.#calls.unary(ctx, APPLY, request);
    return descriptorFromWire(applied);
  }
}
