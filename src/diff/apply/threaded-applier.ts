import { availableParallelism } from 'node:os';
import type { RequestContext } from '../../base/context.ts';
import { digestOf } from '../../base/digest.ts';
import { isOpError, OpError, quote } from '../../base/errors.ts';
import { makeCancelFlag, raise } from '../../platform/jobs/cancellation.ts';
import { FlushBehind } from '../../platform/jobs/flush-behind.ts';
import { Lane } from '../../platform/jobs/lane.ts';
import { Threads } from '../../platform/jobs/threads.ts';
import type { Rebase, Rebaser } from '../../snapshotters/driver.ts';
import type { Mount, Usage } from '../../snapshotters/snapshotter.ts';
import { PLAIN_LAYER, type Applier, type Descriptor } from '../diff.ts';
import { LayerAccounts } from './accounts.ts';
import type { LayerJobs, WrittenLayer } from './layer-jobs.ts';
import { LayerReading, type BlobSources } from './layer-reading.ts';
import { LayersInOrder } from './layers-in-order.ts';
import type { TarLimits } from './limits.ts';
import { isLayer } from './media-types.ts';
import { Rings, type RingSize } from './ring.ts';
import { directoryOf, targetOf, type Target } from './target.ts';

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

/** Applies each layer on two threads: one reads and inflates, the other writes files. Rebases on one. */
export class ThreadedApplier implements Applier, Rebaser, AsyncDisposable {
  readonly accounts = new LayerAccounts();
  readonly #options: ThreadedApplierOptions;
  readonly #threads: Threads<LayerJobs>;
  readonly #rings = new Rings();
  readonly #lane = new Lane(LAYERS);
  /** Of their own: containerd holds its database while it commits, so no layer is waited for. */
  readonly #rebases = new Lane(LAYERS);
  /** Outside of the lane: one may be for a layer that waits for its turn. */
  readonly #ahead = new Set<LayerReading>();

  constructor(options: ThreadedApplierOptions) {
    this.#options = options;
    this.#threads = new Threads({ entry: options.workerEntry, idleMs: IDLE_MS });
  }

  apply(ctx: RequestContext, layer: Descriptor, mounts: readonly Mount[]): Promise<Descriptor> {
    return this.#apply(ctx, layer, mounts, () => this.#read(ctx, layer, 'whole'));
  }

  inOrder(ctx: RequestContext, layers: readonly Descriptor[]): Applier & AsyncDisposable {
    return new LayersInOrder(ctx, layers, {
      // One for the layer that is written, one for the next: no more memory than for one by itself.
      read: (within, layer) => this.#read(within, layer, 'quarter'),
      write: (within, layer, mounts, reading) => this.#apply(within, layer, mounts, reading),
      ahead: this.#ahead,
      aheadMax: LAYERS.parallelMax,
    });
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

  /** @param readingOf asked when it is the layer's turn; disposed of */
  async #apply(
    ctx: RequestContext,
    layer: Descriptor,
    mounts: readonly Mount[],
    readingOf: () => LayerReading | Promise<LayerReading>,
  ): Promise<Descriptor> {
    if (!isLayer(layer.mediaType)) {
      throw new OpError(
        'Unimplemented',
        `media type ${quote(layer.mediaType)}: not one of a layer that is applied here`,
      );
    }
    const target = targetOf(mounts);
    const { hex, size } = await this.accounts.during(target, () =>
      this.#lane.run(`applying layer ${layer.digest}`, ctx.signal, async () => {
        await using reading = await readingOf();
        return await this.#write(ctx, reading, target);
      }),
    );
    return { mediaType: PLAIN_LAYER, digest: digestOf('sha256', hex), size };
  }

  #read(ctx: RequestContext, layer: Descriptor, ringSize: RingSize): LayerReading {
    const { blobs } = this.#options;
    const [threads, rings] = [this.#threads, this.#rings];
    return new LayerReading(ctx, layer, { threads, rings, ringSize, blobs });
  }

  async #write(ctx: RequestContext, reading: LayerReading, target: Target): Promise<WrittenLayer> {
    const { layer, plain } = reading;
    using flushing = new FlushBehind(directoryOf(target));
    const grown = flushing.port;
    const cancel = makeCancelFlag();
    const giveUp = (): void => {
      raise(cancel);
      reading.giveUp();
    };
    ctx.signal.addEventListener('abort', giveUp, { once: true });
    try {
      await reading.found;
      const { limits } = this.#options;
      const { digest } = layer;
      const write = this.#threads.use((thread) =>
        thread.run('writeLayer', { plain, target, digest, limits, cancel, grown }, [grown]),
      );
      // It has told the other half already, unless its thread died.
      write.catch(giveUp);
      const [read, written] = await Promise.allSettled([reading.ended, write]);
      ctx.signal.throwIfAborted();
      return outcomeOf(layer, read, written);
    } finally {
      ctx.signal.removeEventListener('abort', giveUp);
    }
  }
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
