import { unlessAborted } from '../../base/abort.ts';
import { OpError } from '../../base/errors.ts';
import type { GcRuns } from '../../gc/collectible.ts';
import type { Lease, LeaseManager, Resource } from '../../leases/lease.ts';
import { labelsFromWire, labelsToWire } from '../convert/labels.ts';
import { timestampToWire } from '../convert/timestamps.ts';
import { containerd, google } from '../gen/wire.js';
import { unary } from '../service.ts';
import type { Service } from '../service.ts';

const v1 = containerd.services.leases.v1;
const { Empty } = google.protobuf;

export function leasesService(leases: LeaseManager, gc: GcRuns): Service {
  return {
    name: 'containerd.services.leases.v1.Leases',
    methods: {
      Create: unary(v1.CreateRequest, v1.CreateResponse, async (ctx, { id, labels }) => ({
        lease: toWire(await leases.create(ctx, id, labelsFromWire(labels))),
      })),
      Delete: unary(v1.DeleteRequest, Empty, async (ctx, { id, sync }) => {
        await leases.delete(ctx, id);
        if (sync) await unlessAborted(ctx.signal, gc.collect());
        return {};
      }),
      List: unary(v1.ListRequest, v1.ListResponse, async (ctx, { filters }) => ({
        leases: (await leases.list(ctx, filters)).map(toWire),
      })),
      AddResource: unary(v1.AddResourceRequest, Empty, async (ctx, { id, resource }) => {
        await leases.addResource(ctx, id, resourceFromWire(resource));
        return {};
      }),
      DeleteResource: unary(v1.DeleteResourceRequest, Empty, async (ctx, { id, resource }) => {
        await leases.deleteResource(ctx, id, resourceFromWire(resource));
        return {};
      }),
      ListResources: unary(
        v1.ListResourcesRequest,
        v1.ListResourcesResponse,
        async (ctx, { id }) => ({
          resources: (await leases.listResources(ctx, id)).map((resource) => ({ ...resource })),
        }),
      ),
    },
  };
}

const toWire = ({
  id,
  createdAt,
  labels,
}: Lease): containerd.services.leases.v1.Lease.$Properties => ({
  id,
  createdAt: timestampToWire(createdAt),
  labels: labelsToWire(labels),
});

/** @throws OpError InvalidArgument without a resource */
function resourceFromWire(
  resource: containerd.services.leases.v1.Resource.$Properties | null | undefined,
): Resource {
  if (!resource) throw new OpError('InvalidArgument', 'the request has no resource');
  return { type: resource.type ?? '', id: resource.id ?? '' };
}
