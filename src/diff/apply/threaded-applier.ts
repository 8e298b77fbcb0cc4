import { availableParallelism } from 'node:os';
import type { RequestContext } from '../../base/context.ts';
import { digestOf } from '../../base/digest.ts';
import { isOpError, OpError, quote } from '../../base/errors.ts';
import { makeCancelFlag, raise } from '../../platform/jobs/cancellation.ts';
import { Lane } from '../../platform/jobs/lane.ts';
import { Threads } from '../../platform/jobs/threads.ts';
import type { Mount } from '../../snapshotters/snapshotter.ts';
import { PLAIN_LAYER, type Applier, type Descriptor } from '../diff.ts';
import type { LayerJobs, WrittenLayer } from './layer-jobs.ts';
import type { TarLimits } from './limits.ts';
import { isLayer } from './media-types.ts';
import { abandonRing, makeRing, RingWriter } from './ring.ts';
import { targetOf, type Target } from './target.ts';

/** Where blobs are. */
export interface BlobFiles {
  /** The file with a blob's bytes. @throws OpError NotFound */
  pathOf(ctx: RequestContext, layer: Descriptor): Promise<string>;
}

export interface ThreadedApplierOptions {
  /** The bundled file that layer threads run. */
  readonly workerEntry: string;
  readonly limits: TarLimits;
  readonly blobs: BlobFiles;
}

const IDLE_MS = 10_000;

/** More at once gain nothing on two threads each, but a stuck disk must not hold up layers for another. */
const LAYERS = {
  parallel: Math.max(1, Math.floor(availableParallelism() / 2)),
  slowMs: 10_000,
  parallelMax: Math.max(4, availableParallelism()),
};

/** Applies each layer on two threads: one inflates, the other writes files. */
export class ThreadedApplier implements Applier, AsyncDisposable {
  readonly #options: ThreadedApplierOptions;
  readonly #threads: Threads<LayerJobs>;
  readonly #lane = new Lane(LAYERS);

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
    return this.#lane.run(what, ctx.signal, () => this.#apply(ctx, layer, target));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#threads[Symbol.asyncDispose]();
  }

  async #apply(ctx: RequestContext, layer: Descriptor, target: Target): Promise<Descriptor> {
    const path = await this.#options.blobs.pathOf(ctx, layer);
    const plain = makeRing();
    const cancel = makeCancelFlag();
    const giveUp = (): void => {
      raise(cancel);
      abandonRing(plain);
    };
    ctx.signal.addEventListener('abort', giveUp, { once: true });
    try {
      const { limits } = this.#options;
      const read = this.#threads.use((thread) =>
        thread.run('readLayer', { source: { path }, digest: layer.digest, plain }),
      );
      const write = this.#threads.use((thread) =>
        thread.run('writeLayer', { plain, target, limits, cancel }),
      );
      // Each has told the other already, unless its thread died.
      read.catch(() => new RingWriter(plain).fail());
      write.catch(() => abandonRing(plain));
      const [reading, writing] = await Promise.allSettled([read, write]);
      ctx.signal.throwIfAborted();
      return described(layer, reading, writing);
    } finally {
      ctx.signal.removeEventListener('abort', giveUp);
    }
  }
}

/** Either half ends the other: the one that failed by itself says why. */
function described(
  layer: Descriptor,
  reading: PromiseSettledResult<void>,
  writing: PromiseSettledResult<WrittenLayer>,
): Descriptor {
  if (writing.status === 'fulfilled') {
    const { hex, size } = writing.value;
    return { mediaType: PLAIN_LAYER, digest: digestOf('sha256', hex), size };
  }
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
