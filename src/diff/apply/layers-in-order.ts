import type { RequestContext } from '../../base/context.ts';
import type { Mount } from '../../snapshotters/snapshotter.ts';
import type { Applier, Descriptor } from '../diff.ts';
import type { LayerReading } from './layer-reading.ts';

/** What applies layers, by its halves. */
export interface ApplyingByHalves {
  /** Begins to read a layer. */
  read(ctx: RequestContext, layer: Descriptor): LayerReading;
  /** As Applier.apply; `reading` is asked for when it is the layer's turn. */
  write(
    ctx: RequestContext,
    layer: Descriptor,
    mounts: readonly Mount[],
    reading: () => LayerReading | Promise<LayerReading>,
  ): Promise<Descriptor>;
  /** Of all images: begun, and not yet asked for. */
  readonly ahead: Set<LayerReading>;
  /** Each of them holds a ring, and a thread when that is full: images beyond this many read no layer ahead. */
  readonly aheadMax: number;
}

/**
 * What Applier.inOrder promises. The next layer is read when the one before it has been, while that is written: so an
 * image has one layer being read and one being written, at most, and two rings. No reading that is ahead has a place
 * in a lane that its predecessor could wait for.
 */
export class LayersInOrder implements Applier, AsyncDisposable {
  readonly #ctx: RequestContext;
  readonly #layers: readonly Descriptor[];
  readonly #halves: ApplyingByHalves;
  readonly #over = new AbortController();
  #ahead: LayerReading | undefined;

  constructor(ctx: RequestContext, layers: readonly Descriptor[], halves: ApplyingByHalves) {
    const { signal, namespace, leaseId } = ctx;
    this.#ctx = { signal: AbortSignal.any([signal, this.#over.signal]), namespace, leaseId };
    this.#layers = layers;
    this.#halves = halves;
  }

  apply(ctx: RequestContext, layer: Descriptor, mounts: readonly Mount[]): Promise<Descriptor> {
    return this.#halves.write(ctx, layer, mounts, async () => {
      const reading = (await this.#taken(layer)) ?? this.#halves.read(ctx, layer);
      const next = this.#layers[this.#layers.indexOf(layer) + 1];
      reading.ended.then(() => this.#begin(next)).catch(() => undefined);
      return reading;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    await this.#dropped();
  }

  #begin(layer: Descriptor | undefined): void {
    const { ahead, aheadMax } = this.#halves;
    if (layer === undefined || this.#ctx.signal.aborted || ahead.size >= aheadMax) return;
    this.#ahead = this.#halves.read(this.#ctx, layer);
    ahead.add(this.#ahead);
  }

  /** The reading that is ahead, if it is this layer's; of one that was left out nothing stays. */
  async #taken(layer: Descriptor): Promise<LayerReading | undefined> {
    const reading = this.#ahead;
    if (reading?.layer !== layer) {
      await this.#dropped();
      return undefined;
    }
    this.#ahead = undefined;
    this.#halves.ahead.delete(reading);
    return reading;
  }

  async #dropped(): Promise<void> {
    const reading = this.#ahead;
    if (reading === undefined) return;
    this.#ahead = undefined;
    await reading[Symbol.asyncDispose]();
    this.#halves.ahead.delete(reading);
  }
}
