import type { RequestContext } from '../../base/context.ts';
import { isOpError } from '../../base/errors.ts';
import type { Thread } from '../../platform/jobs/thread.ts';
import type { Threads } from '../../platform/jobs/threads.ts';
import type { Descriptor } from '../diff.ts';
import { pourInto } from '../ring-stream.ts';
import type { LayerJobs, ReadLayer } from './layer-jobs.ts';
import { abandonRing, RingWriter, type Ring, type Rings, type RingSize } from './ring.ts';

/** A blob: the file that has its bytes, or the bytes as they come. */
export type BlobSource = (
  | { readonly path: string }
  | { readonly chunks: AsyncIterable<Uint8Array> }
) & {
  /** Its bytes are to be compared with its digest, as nobody has done so yet. */
  readonly toVerify: boolean;
};

/** Where the blobs of layers are. */
export interface BlobSources {
  /** @throws OpError NotFound, at once or as the bytes are asked for */
  sourceOf(ctx: RequestContext, layer: Descriptor): Promise<BlobSource>;
}

export interface ReadingOptions {
  readonly threads: Threads<LayerJobs>;
  readonly rings: Rings;
  readonly ringSize: RingSize;
  readonly blobs: BlobSources;
}

/**
 * The first half of applying a layer: a thread reads its blob, verifies and inflates it into a ring, as far as that
 * has room. It begins at once and needs nothing of the second half; disposing takes thread and ring from it.
 */
export class LayerReading implements AsyncDisposable {
  readonly layer: Descriptor;
  /** What the archive comes out of. */
  readonly plain: Ring;
  /** Resolves when it is known where the blob is. @throws as BlobSources.sourceOf */
  readonly found: Promise<unknown>;
  /** Resolves when all of it is in the ring, and the blob is what its digest says. @throws OpError as Applier.apply */
  readonly ended: Promise<void>;
  readonly #options: ReadingOptions;
  readonly #signal: AbortSignal;
  readonly #ending = new AbortController();
  /** In use. */
  readonly #rings = new Set<Ring>();

  constructor(ctx: RequestContext, layer: Descriptor, options: ReadingOptions) {
    const { rings, ringSize, blobs } = options;
    this.layer = layer;
    this.plain = rings.take(ringSize);
    this.#rings.add(this.plain);
    this.#options = options;
    this.#signal = ctx.signal;
    const { namespace, leaseId } = ctx;
    const signal = AbortSignal.any([ctx.signal, this.#ending.signal]);
    const found = blobs.sourceOf({ signal, namespace, leaseId }, layer);
    this.found = found;
    this.ended = this.#read(found);
    // The thread has told the other one already, unless it died; nobody tells where the bytes come from.
    this.ended.catch(() => new RingWriter(this.plain).fail());
    ctx.signal.addEventListener('abort', this.giveUp, { once: true });
    if (ctx.signal.aborted) this.giveUp();
  }

  /** Both ends of the ring fail, as Canceled. */
  readonly giveUp = (): void => {
    this.#ending.abort();
    this.#rings.forEach(abandonRing);
  };

  /** Nobody may be at the other end of the ring any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#signal.removeEventListener('abort', this.giveUp);
    this.giveUp();
    await this.ended.catch(() => undefined);
    this.#giveBack(this.plain);
  }

  async #read(found: Promise<BlobSource>): Promise<void> {
    const source = await found;
    const expected = source.toVerify ? this.layer.digest : undefined;
    const { plain } = this;
    await this.#options.threads.use((thread) =>
      'path' in source
        ? thread.run('readLayer', { expected, plain, source })
        : this.#readFrom(source.chunks, thread, { expected, plain }),
    );
  }

  /** Lets a thread read a blob as it comes, by a ring of its own. */
  async #readFrom(
    chunks: AsyncIterable<Uint8Array>,
    thread: Thread<LayerJobs>,
    job: Omit<ReadLayer, 'source'>,
  ): Promise<void> {
    const { rings, ringSize } = this.#options;
    const ring = rings.take(ringSize);
    this.#rings.add(ring);
    if (this.#ending.signal.aborted) abandonRing(ring);
    const [pouring, reading] = await Promise.allSettled([
      pourInto(ring, chunks),
      thread.run('readLayer', { ...job, source: { ring } }),
    ]);
    this.#giveBack(ring);
    // The thread abandons the ring when it fails, and fails as Aborted when the bytes stop coming.
    const isCause = pouring.status === 'rejected' && !isOpError(pouring.reason, 'Canceled');
    if (isCause) throw pouring.reason;
    if (reading.status === 'rejected') throw reading.reason;
  }

  #giveBack(ring: Ring): void {
    this.#rings.delete(ring);
    this.#options.rings.giveBack(ring);
  }
}
