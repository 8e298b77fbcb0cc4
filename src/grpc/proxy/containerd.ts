import type { RequestContext } from '../../base/context.ts';
import { containerd } from '../gen/wire.js';
import { Calls } from './calls.ts';

const namespaces = containerd.services.namespaces.v1;
const containers = containerd.services.containers.v1;

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

/** A container as far as storage goes. */
export interface RemoteContainer {
  readonly id: string;
  readonly snapshotter: string;
  readonly snapshotKey: string;
}

/** What a containerd knows that no plugin socket serves. */
export interface ContainerdRecords extends Disposable {
  namespaces(ctx: RequestContext): Promise<readonly string[]>;
  /** Of the namespace in `ctx`. */
  containers(ctx: RequestContext): Promise<readonly RemoteContainer[]>;
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
      return answer.containers.map(({ id, snapshotter, snapshotKey }) => ({
        id: id ?? '',
        snapshotter: snapshotter ?? '',
        snapshotKey: snapshotKey ?? '',
      }));
    },
    [Symbol.dispose]: () => calls[Symbol.dispose](),
  };
}
