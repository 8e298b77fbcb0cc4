import type { RequestContext } from '../../base/context.ts';
import { OpError } from '../../base/errors.ts';
import type { MountManager } from '../../mounts/mount.ts';
import { labelsFromWire } from '../convert/labels.ts';
import { activationToWire, listedMountFromWire } from '../convert/mounts.ts';
import { containerd, google } from '../gen/wire.js';
import { serverStream, unary } from '../service.ts';
import type { Service } from '../service.ts';

const v1 = containerd.services.mounts.v1;

export function mountsService(mounts: MountManager): Service {
  return {
    name: 'containerd.services.mounts.v1.Mounts',
    methods: {
      Activate: unary(v1.ActivateRequest, v1.ActivateResponse, async (ctx, request) => ({
        info: activationToWire(
          await mounts.activate(ctx, {
            name: request.name,
            mounts: request.mounts.map(listedMountFromWire),
            labels: labelsFromWire(request.labels),
            temporary: request.temporary,
          }),
        ),
      })),
      Deactivate: unary(v1.DeactivateRequest, google.protobuf.Empty, async (ctx, { name }) => {
        await mounts.deactivate(ctx, name);
        return {};
      }),
      Info: unary(v1.InfoRequest, v1.InfoResponse, async (ctx, { name }) => ({
        info: activationToWire(await mounts.info(ctx, name)),
      })),
      // containerd has the call and answers the same.
      Update: unary(v1.UpdateRequest, v1.UpdateResponse, async () => {
        throw new OpError('Unimplemented', 'an activation does not change: deactivate it');
      }),
      List: serverStream(v1.ListRequest, v1.ListMessage, (ctx, { filters }) =>
        listed(mounts, ctx, filters),
      ),
    },
  };
}

async function* listed(
  mounts: MountManager,
  ctx: RequestContext,
  filters: readonly string[],
): AsyncIterable<containerd.services.mounts.v1.ListMessage.$Properties> {
  for (const activation of await mounts.list(ctx, filters)) {
    yield { info: activationToWire(activation) };
  }
}
