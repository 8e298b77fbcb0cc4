import type { RequestContext } from '../../base/context.ts';
import type { Applier, Comparer, CompareOptions, Descriptor } from '../../diff/diff.ts';
import type { Mount } from '../../snapshotters/snapshotter.ts';
import { descriptorFromWire, descriptorToWire } from '../convert/diff.ts';
import { labelsToWire } from '../convert/labels.ts';
import { mountsToWire } from '../convert/snapshots.ts';
import { timestampToWire } from '../convert/timestamps.ts';
import { containerd } from '../gen/wire.js';
import type { Calls } from './calls.ts';

const v1 = containerd.services.diff.v1;

const APPLY = {
  path: '/containerd.services.diff.v1.Diff/Apply',
  request: v1.ApplyRequest,
  response: v1.ApplyResponse,
};
const DIFF = {
  path: '/containerd.services.diff.v1.Diff/Diff',
  request: v1.DiffRequest,
  response: v1.DiffResponse,
};

/** A daemon's layer engine. */
export class DiffProxy implements Applier, Comparer {
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

  async compare(
    ctx: RequestContext,
    older: readonly Mount[],
    newer: readonly Mount[],
    { mediaType, ref, labels, sourceDateEpoch }: CompareOptions,
  ): Promise<Descriptor> {
    const { diff } = await this.#calls.unary(ctx, DIFF, {
      left: mountsToWire(older),
      right: mountsToWire(newer),
      mediaType,
      ref,
      labels: labelsToWire(labels),
      sourceDateEpoch: sourceDateEpoch === undefined ? null : timestampToWire(sourceDateEpoch),
    });
    return descriptorFromWire(diff);
  }
}
