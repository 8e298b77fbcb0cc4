import type { RequestContext } from '../../base/context.ts';
import { isOpError } from '../../base/errors.ts';
import type { Labels } from '../../base/labels.ts';
import type { Lease, Resource } from '../../leases/lease.ts';
import { labelsFromWire, type WireMap } from '../convert/labels.ts';
import { timestampFromWire, type WireTimestamp } from '../convert/timestamps.ts';
import { containerd } from '../gen/wire.js';
import { Calls } from './calls.ts';

const namespaces = containerd.services.namespaces.v1;
const containers = containerd.services.containers.v1;
const images = containerd.services.images.v1;
const leases = containerd.services.leases.v1;

const NAMESPACES = {
  path: '/containerd.services.namespaces.v1.Namespaces/List',
  request: namespaces.ListNamespacesRequest,
  response: namespaces.ListNamespacesResponse,
};
const CONTAINERS = {
  path: '/containerd.services.containers.v1.Containers/List',
  request: containers.ListContainersRequest,
  response: containers.ListContainersResponse,
};

const IMAGES = {
  path: '/containerd.services.images.v1.Images/List',
  request: images.ListImagesRequest,
  response: images.ListImagesResponse,
};
const LEASES = {
  path: '/containerd.services.leases.v1.Leases/List',
  request: leases.ListRequest,
  response: leases.ListResponse,
};
const RESOURCES = {
  path: '/containerd.services.leases.v1.Leases/ListResources',
  request: leases.ListResourcesRequest,
  response: leases.ListResourcesResponse,
};

/** A container as far as storage goes. */
export interface RemoteContainer {
  readonly id: string;
  readonly snapshotter: string;
  readonly snapshotKey: string;
  readonly labels: Labels;
  /** Nanoseconds since the epoch. */
  readonly createdAt: bigint;
}

export interface RemoteImage {
  readonly name: string;
  /** Its digest. */
  readonly target: string;
  readonly labels: Labels;
  readonly createdAt: bigint;
}

/** With what it keeps. */
export interface RemoteLease extends Lease {
  readonly resources: readonly Resource[];
}

/** What a containerd knows that no plugin socket serves. */
export interface ContainerdRecords extends Disposable {
  namespaces(ctx: RequestContext): Promise<readonly string[]>;
  /** Of the namespace in `ctx`. */
  containers(ctx: RequestContext): Promise<readonly RemoteContainer[]>;
  images(ctx: RequestContext): Promise<readonly RemoteImage[]>;
  leases(ctx: RequestContext): Promise<readonly RemoteLease[]>;
}

/** Connects when the first call is made. @param address the path of containerd's socket */
export function connectRecords(address: string): ContainerdRecords {
  const calls = new Calls(address);
  return {
    namespaces: async (ctx) => {
      const answer = await calls.unary(ctx, NAMESPACES, { filter: '' });
      return answer.namespaces.map(({ name }) => name ?? '');
    },
    containers: async (ctx) => {
      const answer = await calls.unary(ctx, CONTAINERS, { filters: [] });
      return answer.containers.map((container) => ({
        id: container.id ?? '',
        snapshotter: container.snapshotter ?? '',
        snapshotKey: container.snapshotKey ?? '',
        ...made(container),
      }));
    },
    images: async (ctx) => {
      const answer = await calls.unary(ctx, IMAGES, { filters: [] });
      return answer.images.map((image) => ({
        name: image.name ?? '',
        target: image.target?.digest ?? '',
        ...made(image),
      }));
    },
    leases: async (ctx) => {
      const answer = await calls.unary(ctx, LEASES, { filters: [] });
      const all: RemoteLease[] = [];
      for (const lease of answer.leases) {
        const id = lease.id ?? '';
        all.push({ id, ...made(lease), resources: await resourcesOf(calls, ctx, id) });
      }
      return all;
    },
    [Symbol.dispose]: () => calls[Symbol.dispose](),
  };
}

interface WireRecord {
  readonly labels?: WireMap | null;
  readonly createdAt?: WireTimestamp | null;
}

const made = ({ labels, createdAt }: WireRecord): { labels: Labels; createdAt: bigint } => ({
  labels: labelsFromWire(labels ?? {}),
  createdAt: timestampFromWire(createdAt),
});

/** Of a lease that has ended meanwhile none. */
async function resourcesOf(
  calls: Calls,
  ctx: RequestContext,
  id: string,
): Promise<readonly Resource[]> {
  try {
    const { resources } = await calls.unary(ctx, RESOURCES, { id });
    return resources.map((resource) => ({ type: resource.type ?? '', id: resource.id ?? '' }));
  } catch (error) {
    if (isOpError(error, 'NotFound')) return [];
    throw error;
  }
}
