import { randomUUID } from 'node:crypto';
import type { RequestContext } from '../../base/context.ts';
import { digestOf, type Digest } from '../../base/digest.ts';
import { isOpError, OpError } from '../../base/errors.ts';
import { UNCOMPRESSED_LABEL, type Labels } from '../../base/labels.ts';
import type { ContentStore, Writer } from '../../content/content.ts';
import { makeCancelFlag, raise } from '../../platform/jobs/cancellation.ts';
import { Threads } from '../../platform/jobs/threads.ts';
import type { Mount } from '../../snapshotters/snapshotter.ts';
import { abandonRing, Rings, type Ring } from '../apply/ring.ts';
import type { LayerJobs } from '../apply/layer-jobs.ts';
import type { Comparer, CompareOptions, Descriptor } from '../diff.ts';
import { chunksOf } from '../ring-stream.ts';
import { comparisonOf } from './comparison.ts';
import { formatOf } from './layer-format.ts';
import type { PackedLayer, PackLayer } from './pack-layer.ts';

/** A store, and the request that blobs have to be written with to stay there. */
export interface BlobTarget {
  readonly content: ContentStore;
  readonly ctx: RequestContext;
  /** To be told when nothing more is written: the blob that stays until its caller has labelled it, or none. */
  release(ctx: RequestContext, blob: Digest | undefined): Promise<void>;
}

/** Where the blobs of layers go. */
export interface BlobTargets {
  /** Where the caller of a request looks for its blob. */
  targetFor(ctx: RequestContext): Promise<BlobTarget>;
}

export interface ThreadedComparerOptions {
  /** The bundled file that layer threads run. */
  readonly workerEntry: string;
  readonly blobs: BlobTargets;
}

const IDLE_MS = 10_000;

/** After a caller gave up, the store has so long to end its ingest in order. */
const GRACE_MS = 5_000;

/** Packs each layer on a thread; this one only hands its bytes to the store. */
export class ThreadedComparer implements Comparer, AsyncDisposable {
  readonly #options: ThreadedComparerOptions;
  readonly #rings = new Rings();
  readonly #threads: Threads<LayerJobs>;

  constructor(options: ThreadedComparerOptions) {
    this.#options = options;
    this.#threads = new Threads({ entry: options.workerEntry, idleMs: IDLE_MS });
  }

  async compare(
    ctx: RequestContext,
    older: readonly Mount[],
    newer: readonly Mount[],
    options: CompareOptions,
  ): Promise<Descriptor> {
    const { mediaType, compression } = formatOf(options.mediaType);
    const comparison = comparisonOf(older, newer);
    const target = lingering(await this.#options.blobs.targetFor(ctx));
    const ref = options.ref === '' ? `diff-${randomUUID()}` : options.ref;
    const writer = await target.content.writer(target.ctx, ref, {});
    try {
      await using open = writer;
      const { sourceDateEpoch } = options;
      const packed = await this.#pack(ctx, { comparison, compression, sourceDateEpoch }, open);
      const digest = digestOf('sha256', packed.blobHex);
      const labels = new Map(options.labels);
      labels.set(UNCOMPRESSED_LABEL, digestOf('sha256', packed.diffHex));
      await commit(target, open, digest, labels);
      await target.release(target.ctx, digest);
      return { mediaType, digest, size: packed.blobBytes };
    } catch (error) {
      // The first failure counts; what is left then goes when the store is cleaned up.
      await target.content.abort(target.ctx, ref).catch(() => undefined);
      await target.release(target.ctx, undefined).catch(() => undefined);
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#threads[Symbol.asyncDispose]();
  }

  async #pack(
    ctx: RequestContext,
    job: Omit<PackLayer, 'blob' | 'cancel'>,
    writer: Writer,
  ): Promise<PackedLayer> {
    const [blob, cancel] = [this.#rings.take(), makeCancelFlag()];
    const giveUp = (): void => {
      raise(cancel);
      abandonRing(blob);
    };
    ctx.signal.addEventListener('abort', giveUp, { once: true });
    if (ctx.signal.aborted) giveUp();
    try {
      const [packing, writing] = await Promise.allSettled([
        this.#threads.use((thread) => thread.run('packLayer', { ...job, blob, cancel })),
        pour(blob, writer).finally(giveUp),
      ]);
      ctx.signal.throwIfAborted();
      return outcome(packing, writing);
    } finally {
      ctx.signal.removeEventListener('abort', giveUp);
      this.#rings.giveBack(blob);
    }
  }
}

/** The same target, for a while longer than its request. */
function lingering(target: BlobTarget): BlobTarget {
  const { content, ctx } = target;
  const ended = new AbortController();
  const end = (): void => void setTimeout(() => ended.abort(ctx.signal.reason), GRACE_MS).unref();
  ctx.signal.addEventListener('abort', end, { once: true });
  const { namespace, leaseId } = ctx;
  return {
    content,
    ctx: { signal: ended.signal, namespace, leaseId },
    release: (within, blob) => target.release(within, blob),
  };
}

async function pour(blob: Ring, writer: Writer): Promise<void> {
  let offset = 0;
  for await (const chunk of chunksOf(blob)) {
    await writer.write(offset, new Uint8Array(chunk));
    offset += chunk.length;
  }
}

/** Either half ends the other: the one that failed by itself says why. */
function outcome(
  packing: PromiseSettledResult<PackedLayer>,
  writing: PromiseSettledResult<void>,
): PackedLayer {
  const gaveUp = packing.status === 'rejected' && isOpError(packing.reason, 'Canceled');
  if (packing.status === 'rejected' && !gaveUp) throw packing.reason;
  if (writing.status === 'rejected') throw writing.reason;
  if (packing.status === 'rejected') throw packing.reason;
  return packing.value;
}

/** A blob that is there already keeps its labels, but has its diff ID afterwards. */
async function commit(
  { content, ctx }: BlobTarget,
  writer: Writer,
  digest: Digest,
  labels: Labels,
): Promise<void> {
  try {
    const committed = await writer.commit(labels);
    if (committed === digest) return;
    throw new OpError('DataLoss', `the store made ${committed} of the layer ${digest}`);
  } catch (error) {
    if (!isOpError(error, 'AlreadyExists')) throw error;
  }
  const info = await content.info(ctx, digest);
  if (info.labels.has(UNCOMPRESSED_LABEL)) return;
  const added = new Map([[UNCOMPRESSED_LABEL, labels.get(UNCOMPRESSED_LABEL) ?? '']]);
  await content.update(ctx, { digest, labels: added }, [`labels.${UNCOMPRESSED_LABEL}`]);
}
