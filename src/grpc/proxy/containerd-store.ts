import type { RequestContext } from '../../base/context.ts';
import type { Labels } from '../../base/labels.ts';
import type { ContentStore } from '../../content/content.ts';
import { labelsToWire } from '../convert/labels.ts';
import { containerd } from '../gen/wire.js';
import { Calls } from './calls.ts';
import { ContentProxy } from './content.ts';

const leases = containerd.services.leases.v1;

const CREATE_LEASE = {
  path: '/containerd.services.leases.v1.Leases/Create',
  request: leases.CreateRequest,
  response: leases.CreateResponse,
};

/** The content store of a containerd, which every request sees the namespace of. */
export interface ContainerdStore extends Disposable {
  readonly content: ContentStore;
  /** What is made under a lease stays until it ends. @throws OpError AlreadyExists */
  createLease(ctx: RequestContext, id: string, labels: Labels): Promise<void>;
}

/** Connects when the first call is made. @param address the path of containerd's socket */
export function connectStore(address: string): ContainerdStore {
  const calls = new Calls(address);
  return {
    content: new ContentProxy(calls),
    createLease: async (ctx, id, labels) => {
      await calls.unary(ctx, CREATE_LEASE, { id, labels: labelsToWire(labels) });
    },
    [Symbol.dispose]: () => calls[Symbol.dispose](),
  };
}
