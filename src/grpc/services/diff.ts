import type { Applier, Comparer } from '../../diff/diff.ts';
import { descriptorFromWire, descriptorToWire } from '../convert/diff.ts';
import { labelsFromWire } from '../convert/labels.ts';
import { mountsFromWire } from '../convert/snapshots.ts';
import { timestampFromWire } from '../convert/timestamps.ts';
import { containerd } from '../gen/wire.js';
import { unary } from '../service.ts';
import type { Service } from '../service.ts';

const v1 = containerd.services.diff.v1;

export function diffService(applier: Applier, comparer: Comparer): Service {
  return {
    name: 'containerd.services.diff.v1.Diff',
    methods: {
      Apply: unary(v1.ApplyRequest, v1.ApplyResponse, async (ctx, { diff, mounts }) => {
        const layer = descriptorFromWire(diff);
        const applied = await applier.apply(ctx, layer, mountsFromWire(mounts));
        return { applied: descriptorToWire(applied) };
      }),
      Diff: unary(v1.DiffRequest, v1.DiffResponse, async (ctx, request) => {
        const { left, right, mediaType, ref, labels, sourceDateEpoch } = request;
        const layer = await comparer.compare(ctx, mountsFromWire(left), mountsFromWire(right), {
          mediaType,
          ref,
          labels: labelsFromWire(labels),
          sourceDateEpoch: sourceDateEpoch ? timestampFromWire(sourceDateEpoch) : undefined,
        });
        return { diff: descriptorToWire(layer) };
      }),
    },
  };
}
