import type { RequestContext } from '../../base/context.ts';
import type { Digest } from '../../base/digest.ts';
import type { Labels } from '../../base/labels.ts';
import type { ContentStore } from '../../content/content.ts';
import { labelsToWire } from '../convert/labels.ts';
import { containerd, google } from '../gen/wire.js';
import { Calls } from './calls.ts';
import { ContentProxy } from './content.ts';

const leases = containerd.services.leases.v1;

const CREATE_LEASE = {
  path: '/containerd.services.leases.v1.Leases/Create',
  request: leases.CreateRequest,
  response: leases.CreateResponse,
};

const DELETE_LEASE = {
  path: '/containerd.services.leases.v1.Leases/Delete',
  request: leases.DeleteRequest,
  response: google.protobuf.Empty,
};
const ADD_RESOURCE = {
  path: '/containerd.services.leases.v1.Leases/AddResource',
  request: leases.AddResourceRequest,
  response: google.protobuf.Empty,
};

/** The content store of a containerd, which every request sees the namespace of. */
export interface ContainerdStore extends Disposable {
  readonly content: ContentStore;
  /** What is made under a lease stays until it ends. @throws OpError AlreadyExists */
  createLease(ctx: RequestContext, id: string, labels: Labels): Promise<void>;
  /** Keeps a blob that is there by the lease too. @throws OpError NotFound */
  addToLease(ctx: RequestContext, id: string, digest: Digest): Promise<void>;
  /** What only it kept is collected sooner or later. @throws OpError NotFound */
  deleteLease(ctx: RequestContext, id: string): Promise<void>;
}

/** Connects when the first call is made. @param address the path of containerd's socket */
export function connectStore(address: string): ContainerdStore {
  const calls = new Calls(address);
  return {
    content: new ContentProxy(calls),
    createLease: async (ctx, id, labels) => {
      await calls.unary(ctx, CREATE_LEASE, { id, labels: labelsToWire(labels) });
    },
    addToLease: async (ctx, id, digest) => {
      await calls.unary(ctx, ADD_RESOURCE, { id, resource: { id: digest, type: 'content' } });
    },
    deleteLease: async (ctx, id) => {
      await calls.unary(ctx, DELETE_LEASE, { id });
    },
    [Symbol.dispose]: () => calls[Symbol.dispose](),
  };
}
