import type { RequestContext } from '../../base/context.ts';
import type { ContainerStore } from '../../containers/container.ts';
import { containerFromWire, containerToWire } from '../convert/containers.ts';
import { containerd, google } from '../gen/wire.js';
import { serverStream, unary } from '../service.ts';
import type { Service } from '../service.ts';

const v1 = containerd.services.containers.v1;
type WireContainer = containerd.services.containers.v1.Container.$Properties;

export function containersService(containers: ContainerStore): Service {
  return {
    name: 'containerd.services.containers.v1.Containers',
    methods: {
      Get: unary(v1.GetContainerRequest, v1.GetContainerResponse, async (ctx, { id }) => ({
        container: containerToWire(await containers.get(ctx, id)),
      })),
      List: unary(v1.ListContainersRequest, v1.ListContainersResponse, async (ctx, request) => ({
        containers: (await containers.list(ctx, request.filters)).map(containerToWire),
      })),
      ListStream: serverStream(
        v1.ListContainersRequest,
        v1.ListContainerMessage,
        (ctx, { filters }) => listed(containers, ctx, filters),
      ),
      Create: unary(
        v1.CreateContainerRequest,
        v1.CreateContainerResponse,
        async (ctx, { container }) => ({
          container: containerToWire(await containers.create(ctx, containerFromWire(container))),
        }),
      ),
      Update: unary(
        v1.UpdateContainerRequest,
        v1.UpdateContainerResponse,
        async (ctx, { container, updateMask }) => ({
          container: containerToWire(
            await containers.update(ctx, containerFromWire(container), updateMask?.paths ?? []),
          ),
        }),
      ),
      Delete: unary(v1.DeleteContainerRequest, google.protobuf.Empty, async (ctx, { id }) => {
        await containers.delete(ctx, id);
        return {};
      }),
    },
  };
}

async function* listed(
  containers: ContainerStore,
  ctx: RequestContext,
  filters: readonly string[],
): AsyncIterable<{ container: WireContainer }> {
  for (const container of await containers.list(ctx, filters)) {
    yield { container: containerToWire(container) };
  }
}
