import { availableParallelism } from 'node:os';
import type { RequestContext } from '../../base/context.ts';
import { digestOf } from '../../base/digest.ts';
import { isOpError, OpError, quote } from '../../base/errors.ts';
import { makeCancelFlag, raise } from '../../platform/jobs/cancellation.ts';
import { Lane } from '../../platform/jobs/lane.ts';
import type { Thread } from '../../platform/jobs/thread.ts';
import { Threads } from '../../platform/jobs/threads.ts';
import type { Rebase, Rebaser } from '../../snapshotters/driver.ts';
import type { Mount, Usage } from '../../snapshotters/snapshotter.ts';
import { PLAIN_LAYER, type Applier, type Descriptor } from '../diff.ts';
import { LayerAccounts } from './accounts.ts';
import type { LayerJobs, ReadLayer, WrittenLayer } from './layer-jobs.ts';
import { pourInto } from '../ring-stream.ts';
import type { TarLimits } from './limits.ts';
import { isLayer } from './media-types.ts';
import { abandonRing, Rings, RingWriter, type Ring } from './ring.ts';
import { targetOf, type Target } from './target.ts';

/** A blob: the file that has its bytes, or the bytes as they come. */
export type BlobSource = { readonly path: string } | { readonly chunks: AsyncIterable<Uint8Array> };

/** Where the blobs of layers are. */
export interface BlobSources {
  /** @throws OpError NotFound, at once or as the bytes are asked for */
  sourceOf(ctx: RequestContext, layer: Descriptor): Promise<BlobSource>;
}

export interface ThreadedApplierOptions {
  /** The bundled file that layer threads run. */
  readonly workerEntry: string;
  readonly limits: TarLimits;
  readonly blobs: BlobSources;
}

const IDLE_MS = 10_000;

/** More at once gain nothing on two threads each, but a stuck disk must not hold up layers for another. */
const LAYERS = {
  parallel: Math.max(1, Math.floor(availableParallelism() / 2)),
  slowMs: 10_000,
  parallelMax: Math.max(4, availableParallelism()),
};

/** Applies each layer on two threads: one inflates, the other writes files. Rebases on one. */
export class ThreadedApplier implements Applier, Rebaser, AsyncDisposable {
  readonly accounts = new LayerAccounts();
  readonly #options: ThreadedApplierOptions;
  readonly #threads: Threads<LayerJobs>;
  readonly #rings = new Rings();
  readonly #lane = new Lane(LAYERS);
  /** Of their own: containerd holds its database while it commits, so no layer is waited for. */
  readonly #rebases = new Lane(LAYERS);

  constructor(options: ThreadedApplierOptions) {
    this.#options = options;
    this.#threads = new Threads({ entry: options.workerEntry, idleMs: IDLE_MS });
  }

  async apply(
    ctx: RequestContext,
    layer: Descriptor,
    mounts: readonly Mount[],
  ): Promise<Descriptor> {
    if (!isLayer(layer.mediaType)) {
      throw new OpError(
        'Unimplemented',
        `media type ${quote(layer.mediaType)}: not one of a layer that is applied here`,
      );
    }
    const target = targetOf(mounts);
    const what = `applying layer ${layer.digest}`;
    const { hex, size } = await this.accounts.during(target, () =>
      this.#lane.run(what, ctx.signal, () => this.#apply(ctx, layer, target)),
    );
    return { mediaType: PLAIN_LAYER, digest: digestOf('sha256', hex), size };
  }

  async rebase(rebase: Rebase, signal: AbortSignal): Promise<Usage | undefined> {
    const { limits } = this.#options;
    const cancel = makeCancelFlag();
    const giveUp = (): void => raise(cancel);
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      return await this.#rebases.run(`rebasing ${rebase.upper}`, signal, () =>
        this.#threads.use((thread) => thread.run('rebaseLayers', { ...rebase, limits, cancel })),
      );
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#threads[Symbol.asyncDispose]();
  }

  async #apply(ctx: RequestContext, layer: Descriptor, target: Target): Promise<WrittenLayer> {
    const plain = this.#rings.take();
    const rings = [plain];
    const cancel = makeCancelFlag();
    const ending = new AbortController();
    const giveUp = (): void => {
      raise(cancel);
      ending.abort();
      rings.forEach(abandonRing);
    };
    ctx.signal.addEventListener('abort', giveUp, { once: true });
    try {
      const { limits, blobs } = this.#options;
      const { digest } = layer;
      const { namespace, leaseId } = ctx;
      const signal = AbortSignal.any([ctx.signal, ending.signal]);
      const source = await blobs.sourceOf({ signal, namespace, leaseId }, layer);
      const read = this.#threads.use((thread) => {
        if ('path' in source) return thread.run('readLayer', { digest, plain, source });
        const ring = this.#rings.take();
        rings.push(ring);
        return readInto(ring, thread, source.chunks, { digest, plain });
      });
      const write = this.#threads.use((thread) =>
        thread.run('writeLayer', { plain, target, digest, limits, cancel }),
      );
      // Each has told the other already, unless its thread died; nobody tells where the bytes come from.
      read.catch(() => new RingWriter(plain).fail());
      write.catch(giveUp);
      const [reading, writing] = await Promise.allSettled([read, write]);
      ctx.signal.throwIfAborted();
      return outcomeOf(layer, reading, writing);
    } finally {
      ctx.signal.removeEventListener('abort', giveUp);
      this.#rings.giveBack(...rings);
    }
  }
}

/** Lets a thread read a blob as it comes, by a ring of its own. */
async function readInto(
  ring: Ring,
  thread: Thread<LayerJobs>,
  chunks: AsyncIterable<Uint8Array>,
  job: Omit<ReadLayer, 'source'>,
): Promise<void> {
  const [pouring, reading] = await Promise.allSettled([
    pourInto(ring, chunks),
    thread.run('readLayer', { ...job, source: { ring } }),
  ]);
  // The thread abandons the ring when it fails, and fails as Aborted when the bytes stop coming.
  const isCause = pouring.status === 'rejected' && !isOpError(pouring.reason, 'Canceled');
  if (isCause) throw pouring.reason;
  if (reading.status === 'rejected') throw reading.reason;
}

/** Either half ends the other: the one that failed by itself says why. */
function outcomeOf(
  layer: Descriptor,
  reading: PromiseSettledResult<void>,
  writing: PromiseSettledResult<WrittenLayer>,
): WrittenLayer {
  if (writing.status === 'fulfilled') return writing.value;
  const name = `layer ${layer.digest}`;
  if (reading.status === 'fulfilled' || !isOpError(writing.reason, 'Aborted')) {
    throw named(name, writing.reason);
  }
  throw named(name, reading.reason, writing.reason.message);
}

function named(name: string, error: unknown, where?: string): unknown {
  if (!isOpError(error)) return error;
  const more = where === undefined ? '' : ` (${where})`;
  return new OpError(error.code, `${name}: ${error.message}${more}`, { cause: error });
}
