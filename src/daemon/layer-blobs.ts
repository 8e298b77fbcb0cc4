import { randomUUID } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import type { RequestContext } from '../base/context.ts';
import { isOpError } from '../base/errors.ts';
import type { LocalContentStore } from '../content/local-store.ts';
import type { BlobSources } from '../diff/apply/threaded-applier.ts';
import type { BlobTargets } from '../diff/compare/threaded-comparer.ts';
import { connectStore, type ContainerdStore } from '../grpc/proxy/containerd-store.ts';

/** How long a blob has to be packed, and then to be labelled by who asked for it. */
const LEASE_NS = 60n * 60n * 1_000_000_000n;

/** Where the blobs of layers are: in our own store, and in that of a containerd that we serve. */
export interface LayerBlobs extends BlobSources, BlobTargets, Disposable {}

/** @param address the path of containerd's socket; undefined when there is none */
export function layerBlobs(
  own: LocalContentStore,
  address: string | undefined,
  clock: Clock,
): LayerBlobs {
  const containerd = address === undefined ? undefined : connectStore(address);
  return {
    sourceOf: async (ctx, { digest }) => {
      try {
        return { path: own.pathOf(digest) };
      } catch (error) {
        if (containerd === undefined || !isOpError(error, 'NotFound')) throw error;
        return { chunks: containerd.content.read(ctx, digest, 0, 0) };
      }
    },
    // Its callers look for a blob in containerd's records, which know nothing of what is put into ours.
    targetFor: async (ctx) =>
      containerd === undefined
        ? { content: own, ctx }
        : { content: containerd.content, ctx: await leased(ctx, containerd, clock) },
    [Symbol.dispose]: () => containerd?.[Symbol.dispose](),
  };
}

/** Nobody has a reference to the blob yet, and containerd does not tell us its caller's lease. */
async function leased(
  ctx: RequestContext,
  containerd: ContainerdStore,
  clock: Clock,
): Promise<RequestContext> {
  if (ctx.leaseId !== undefined) return ctx;
  const leaseId = `ballast-diff-${randomUUID()}`;
  const expire = new Date(Number((clock.now() + LEASE_NS) / 1_000_000n)).toISOString();
  await containerd.createLease(ctx, leaseId, new Map([['containerd.io/gc.expire', expire]]));
  return { signal: ctx.signal, namespace: ctx.namespace, leaseId };
}
