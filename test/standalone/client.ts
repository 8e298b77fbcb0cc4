import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RequestContext } from '../../src/base/context.ts';
import { background } from '../../src/base/context.ts';
import { containerd, google } from '../../src/grpc/gen/wire.js';
import { Calls, type Decoder, type Encoder } from '../../src/grpc/proxy/calls.ts';
import { Daemon } from '../support/daemon.ts';
import { repository } from '../support/temporary.ts';

const { services } = containerd;
const { Empty } = google.protobuf;

const rpc = <Request, Response>(
  service: string,
  method: string,
  request: Encoder<Request>,
  response: Decoder<Response>,
) => ({ path: `/containerd.services.${service}/${method}`, request, response });

const namespaces = services.namespaces.v1;
const images = services.images.v1;
const leases = services.leases.v1;
const containers = services.containers.v1;
const events = services.events.v1;
const mounts = services.mounts.v1;

/** The calls of the nouns, as a client makes them. */
export const RPC = {
  createNamespace: rpc(
    'namespaces.v1.Namespaces',
    'Create',
    namespaces.CreateNamespaceRequest,
    namespaces.CreateNamespaceResponse,
  ),
  updateNamespace: rpc(
    'namespaces.v1.Namespaces',
    'Update',
    namespaces.UpdateNamespaceRequest,
    namespaces.UpdateNamespaceResponse,
  ),
  listNamespaces: rpc(
    'namespaces.v1.Namespaces',
    'List',
    namespaces.ListNamespacesRequest,
    namespaces.ListNamespacesResponse,
  ),
  deleteNamespace: rpc(
    'namespaces.v1.Namespaces',
    'Delete',
    namespaces.DeleteNamespaceRequest,
    Empty,
  ),
  createImage: rpc(
    'images.v1.Images',
    'Create',
    images.CreateImageRequest,
    images.CreateImageResponse,
  ),
  updateImage: rpc(
    'images.v1.Images',
    'Update',
    images.UpdateImageRequest,
    images.UpdateImageResponse,
  ),
  listImages: rpc('images.v1.Images', 'List', images.ListImagesRequest, images.ListImagesResponse),
  deleteImage: rpc('images.v1.Images', 'Delete', images.DeleteImageRequest, Empty),
  createLease: rpc('leases.v1.Leases', 'Create', leases.CreateRequest, leases.CreateResponse),
  deleteLease: rpc('leases.v1.Leases', 'Delete', leases.DeleteRequest, Empty),
  addResource: rpc('leases.v1.Leases', 'AddResource', leases.AddResourceRequest, Empty),
  listLeases: rpc('leases.v1.Leases', 'List', leases.ListRequest, leases.ListResponse),
  listResources: rpc(
    'leases.v1.Leases',
    'ListResources',
    leases.ListResourcesRequest,
    leases.ListResourcesResponse,
  ),
  createContainer: rpc(
    'containers.v1.Containers',
    'Create',
    containers.CreateContainerRequest,
    containers.CreateContainerResponse,
  ),
  updateContainer: rpc(
    'containers.v1.Containers',
    'Update',
    containers.UpdateContainerRequest,
    containers.UpdateContainerResponse,
  ),
  listContainers: rpc(
    'containers.v1.Containers',
    'List',
    containers.ListContainersRequest,
    containers.ListContainersResponse,
  ),
  activate: rpc('mounts.v1.Mounts', 'Activate', mounts.ActivateRequest, mounts.ActivateResponse),
  deactivate: rpc('mounts.v1.Mounts', 'Deactivate', mounts.DeactivateRequest, Empty),
  activation: rpc('mounts.v1.Mounts', 'Info', mounts.InfoRequest, mounts.InfoResponse),
  updateActivation: rpc('mounts.v1.Mounts', 'Update', mounts.UpdateRequest, mounts.UpdateResponse),
  activations: rpc('mounts.v1.Mounts', 'List', mounts.ListRequest, mounts.ListMessage),
  publish: rpc('events.v1.Events', 'Publish', events.PublishRequest, Empty),
  forward: rpc('events.v1.Events', 'Forward', events.ForwardRequest, Empty),
  subscribe: rpc(
    'events.v1.Events',
    'Subscribe',
    events.SubscribeRequest,
    containerd.types.Envelope,
  ),
} as const;

/** For `startAlone`: nothing is collected while a test looks at what is not referred to. */
export const COLLECT_NOTHING = 'startup_delay = "0ms"\nschedule_delay = "24h"';
/** Only what waits for a run brings it about. */
export const COLLECT_WHEN_ASKED = 'startup_delay = "0ms"\npause_threshold = 0.0000001';
/** As it is by itself. */
export const COLLECT = '';

/** Starts a ballast alone, with one snapshotter; the caller disposes it. */
export async function startAlone(
  root: string,
  gc: string = COLLECT_NOTHING,
  driver: 'native' | 'btrfs' = 'native',
): Promise<Daemon> {
  const config = join(root, 'ballast.toml');
  await mkdir(root, { recursive: true });
  const socket = join(root, 'alone.sock');
  const text = `root = "${root}"
[standalone]
socket = "${socket}"
[gc]
${gc}
[snapshotter.${driver}]
driver = "${driver}"
`;
  await writeFile(config, text);
  return Daemon.start({
    root,
    socket,
    snapshotter: driver,
    command: `${join(repository, 'bin/ballast')} serve --config ${config}`,
  });
}

export const callsOf = ({ socket }: Daemon): Calls => new Calls(socket);

/** A request's headers. */
export const inside = (namespace: string, leaseId?: string): RequestContext => ({
  signal: background.signal,
  namespace,
  leaseId,
});

export const TARGET = {
  mediaType: 'application/vnd.oci.image.manifest.v1+json',
  digest: `sha256:${'a'.repeat(64)}`,
  size: 100,
} as const;
