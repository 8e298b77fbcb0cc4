import { randomUUID } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import type { RequestContext } from '../base/context.ts';
import { isOpError, OpError } from '../base/errors.ts';
import type { ContentStore } from '../content/content.ts';
import type { LocalContentStore } from '../content/local-store.ts';
import type { Verified } from './config-keys.ts';
import { EXPIRE_LABEL } from '../gc/collectible.ts';
import type { BlobSources } from '../diff/apply/layer-reading.ts';
import type { BlobTarget, BlobTargets } from '../diff/compare/threaded-comparer.ts';
import { connectStore, type ContainerdStore } from '../grpc/proxy/containerd-store.ts';

const MINUTE_NS = 60n * 1_000_000_000n;
/** How long a layer may take to be packed; what a crash leaves in containerd goes then. */
const PACKING_NS = 60n * MINUTE_NS;
/** How long a blob has to be labelled by who asked for it; nobody else can collect it before. */
const LABELLING_NS = 2n * MINUTE_NS;

/** Where the blobs of layers are: in our own store, and in that of a containerd that we serve. */
export interface LayerBlobs extends BlobSources, BlobTargets, Disposable {}

export interface LayerBlobsOptions {
  /** The path of containerd's socket; undefined when there is none. */
  readonly containerdAddress: string | undefined;
  readonly verify: Verified;
  readonly clock: Clock;
}

export function layerBlobs(
  own: LocalContentStore,
  { containerdAddress: address, verify, clock }: LayerBlobsOptions,
): LayerBlobs {
  const containerd = address === undefined ? undefined : connectStore(address);
  return {
    sourceOf: async (ctx, { digest }) => {
      try {
        return { path: own.pathOf(digest), toVerify: verify === 'all' };
      } catch (error) {
        if (containerd === undefined || !isOpError(error, 'NotFound')) throw error;
        requireNamespace(ctx);
        return { chunks: containerd.content.read(ctx, digest, 0, 0), toVerify: true };
      }
    },
    // Its callers look for a blob in containerd's records, which know nothing of what is put into ours.
    targetFor: async (ctx) =>
      containerd === undefined
        ? { content: own, ctx, release: async () => undefined }
        : leasedTarget(ctx, containerd, clock),
    [Symbol.dispose]: () => containerd?.[Symbol.dispose](),
  };
}

/** On a standalone socket: those that a request's namespace sees, kept by the request's own lease. */
export const namespacedBlobs = (
  own: LocalContentStore,
  content: ContentStore,
  verify: Verified,
): LayerBlobs => ({
  sourceOf: async (ctx, { digest }) => {
    await content.info(ctx, digest);
    return { path: own.pathOf(digest), toVerify: verify === 'all' };
  },
  targetFor: async (ctx) => ({ content, ctx, release: async () => undefined }),
  [Symbol.dispose]: () => undefined,
});

/** Nobody has a reference to the blob yet, and containerd does not tell us its caller's lease. */
async function leasedTarget(
  ctx: RequestContext,
  containerd: ContainerdStore,
  clock: Clock,
): Promise<BlobTarget> {
  const { content } = containerd;
  requireNamespace(ctx);
  if (ctx.leaseId !== undefined) return { content, ctx, release: async () => undefined };
  const lease = async (within: RequestContext, ns: bigint): Promise<string> => {
    const id = `ballast-diff-${randomUUID()}`;
    const expire = new Date(Number((clock.now() + ns) / 1_000_000n)).toISOString();
    await containerd.createLease(within, id, new Map([[EXPIRE_LABEL, expire]]));
    return id;
  };
  const packing = await lease(ctx, PACKING_NS);
  return {
    content,
    ctx: { signal: ctx.signal, namespace: ctx.namespace, leaseId: packing },
    release: async (within, digest) => {
      if (digest !== undefined) {
        const labelling = await lease(within, LABELLING_NS);
        await containerd.addToLease(within, labelling, digest);
      }
      await containerd.deleteLease(within, packing);
    },
  };
}

/** containerd 1.7 forwards no namespace to a differ; it asks its own one then. */
function requireNamespace({ namespace }: RequestContext): void {
  if (namespace !== undefined) return;
  throw new OpError(
    'Unimplemented',
    'the request names no namespace, and so no content of containerd that its blob could be in',
  );
}
