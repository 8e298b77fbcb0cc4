import type { Applier } from '../../diff/diff.ts';
import { descriptorFromWire, descriptorToWire } from '../convert/diff.ts';
import { mountsFromWire } from '../convert/snapshots.ts';
import { containerd } from '../gen/wire.js';
import { unary } from '../service.ts';
import type { Service } from '../service.ts';

const v1 = containerd.services.diff.v1;

export function diffService(applier: Applier): Service {
  return {
    name: 'containerd.services.diff.v1.Diff',
    methods: {
      Apply: unary(v1.ApplyRequest, v1.ApplyResponse, async (ctx, { diff, mounts }) => {
        const layer = descriptorFromWire(diff);
        const applied = await applier.apply(ctx, layer, mountsFromWire(mounts));
        return { applied: descriptorToWire(applied) };
      }),
    },
  };
}
