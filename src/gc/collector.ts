import type { Clock } from '../base/clock.ts';
import { isOpError, OpError } from '../base/errors.ts';
import type { MetadataStore } from '../metadata/metadata.ts';
import type { Collectible, Discarded, Node, Vertex } from './collectible.ts';
import { idOf, Marker, type Graph } from './mark.ts';
import { SweepOrder } from './sweep-order.ts';

/** So long the event loop belongs to a run before others have their turn. */
const SLICE_MS = 2;
/** Steps between two looks at the time; one takes some microseconds. */
const STEPS_PER_LOOK = 4;
/** So many nodes are removed in one batch at most, which is one turn: a slice ends it earlier. */
const NODES_PER_BATCH = 256;

/** What a run came to. */
export interface RunResult {
  readonly removed: number;
  /** How long the run had the event loop, all its slices together, in milliseconds. */
  readonly busyMs: number;
  /** The longest of its slices, in milliseconds. */
  readonly longestMs: number;
  /** When the next root ends being one, in nanoseconds since the epoch. */
  readonly nextExpiry: bigint | undefined;
}

export interface CollectorDependencies {
  readonly metadata: Pick<MetadataStore, 'update'>;
  readonly clock: Clock;
}

/**
 * Removes what nobody can reach: marks, in slices, then sweeps, in batches.
 *
 * Requests go on meanwhile. What they change is touched, and so marked (mark.ts); a node is removed in
 * the turn in which it is found unmarked while nothing waits to be marked. Removals go through batches
 * as any other change does, in the order in which they were made in memory, and each node goes before
 * what it refers to (sweep-order.ts): a crash leaves some of what was unreachable, with all it refers to.
 */
export class Collector implements Graph {
  readonly #dependencies: CollectorDependencies;
  readonly #collectibles = new Map<string, Collectible>();
  /** How many requests build on a node, by its id. */
  readonly #holds = new Map<string, { readonly node: Node; count: number }>();
  #marker: Marker | undefined;
  #busyMs = 0;
  #longestMs = 0;

  constructor(dependencies: CollectorDependencies) {
    this.#dependencies = dependencies;
  }

  add(collectible: Collectible): void {
    this.#collectibles.set(collectible.type, collectible);
  }

  *nodes(): Iterable<Node> {
    for (const collectible of this.#collectibles.values()) yield* collectible.nodes();
  }

  find(node: Node): Vertex | undefined {
    return this.#collectibles.get(node.type)?.find(node.namespace, node.key);
  }

  touch(node: Node): void {
    this.#marker?.touch(node);
  }

  hold(node: Node): Disposable {
    const id = idOf(node);
    const held = this.#holds.get(id) ?? { node, count: 0 };
    held.count++;
    this.#holds.set(id, held);
    this.touch(node);
    return {
      [Symbol.dispose]: () => {
        if (--held.count === 0) this.#holds.delete(id);
      },
    };
  }

  /**
   * Ends the run under way, if any. A change that is taken back makes edges and roots again that nobody
   * touched.
   */
  abandon(): void {
    this.#marker = undefined;
  }

  /** One at a time. @throws OpError Unavailable when it was abandoned */
  async run(): Promise<RunResult> {
    const marker = new Marker(this, this.#dependencies.clock.now());
    this.#marker = marker;
    this.#busyMs = 0;
    this.#longestMs = 0;
    let removed: number;
    try {
      for (const { node } of this.#holds.values()) marker.touch(node);
      await this.#finish(marker);
      removed = await this.#sweep(marker);
    } finally {
      this.#marker = undefined;
    }
    for (const collectible of this.#collectibles.values()) await collectible.swept?.();
    return {
      removed,
      busyMs: this.#busyMs,
      longestMs: this.#longestMs,
      nextExpiry: marker.nextExpiry,
    };
  }

  /** Marks until nothing waits; when it resolves, no other has had a turn since. */
  async #finish(marker: Marker): Promise<void> {
    await this.#inSlices(() => {
      this.#requireCurrent(marker);
      if (marker.isDone) return false;
      marker.step();
      return true;
    });
  }

  /** @throws OpError Unavailable */
  #requireCurrent(marker: Marker): void {
    if (this.#marker === marker) return;
    throw new OpError('Unavailable', 'the collection ended early: try again');
  }

  /** @param step false when there is nothing left to do */
  async #inSlices(step: () => boolean): Promise<void> {
    while (this.#takeSlice(step)) await nextTurn();
  }

  #takeSlice(step: () => boolean): boolean {
    using slice = this.#slice();
    let more = true;
    while (more && !slice.isOver()) {
      for (let n = 0; more && n < STEPS_PER_LOOK; n++) more = step();
    }
    return more;
  }

  /** @returns how many have gone; what a request is at work on stays for the next run */
  async #sweep(marker: Marker): Promise<number> {
    const left = await this.#unreachable(marker);
    let removed = 0;
    for (let at = 0; at < left.length;) {
      await this.#finish(marker);
      const { end, gone } = await this.#remove(marker, left, at);
      removed += gone;
      at = end;
    }
    return removed;
  }

  /** In the order in which they are to go. */
  async #unreachable(marker: Marker): Promise<readonly Node[]> {
    const order = new SweepOrder({
      nodes: () => this.nodes(),
      isMarked: (node) => marker.isMarked(node),
      referencesOf: (node) => marker.referencesOf(node),
    });
    await this.#inSlices(() => order.step());
    return order.result;
  }

  /**
   * Removes the nodes from `at` on, as many as a slice and a record hold.
   * @param most so many
   * @returns where the next batch begins, and how many have gone
   */
  async #remove(
    marker: Marker,
    nodes: readonly Node[],
    at: number,
    most = NODES_PER_BATCH,
  ): Promise<{ readonly end: number; readonly gone: number }> {
    let end = at;
    let gone: Discarded[] = [];
    const written = this.#dependencies.metadata.update(
      (tx) => {
        using slice = this.#slice();
        // On a full disk the change is taken back and made once more, in a later turn.
        [end, gone] = [at, []];
        this.#requireCurrent(marker);
        while (!marker.isDone) marker.step();
        for (const node of nodes.slice(at, at + most)) {
          end++;
          if (marker.isMarked(node)) continue;
          const { type, namespace, key } = node;
          const discarded = this.#collectibles.get(type)?.discard(tx, namespace, key);
          if (discarded !== undefined) gone.push(discarded);
          if (slice.isOver()) break;
        }
      },
      { frees: true },
    );
    try {
      await written;
    } catch (error) {
      // More than a record holds, of names that are kilobytes long.
      const tried = end - at;
      if (tried <= 1 || !isOpError(error, 'ResourceExhausted')) throw error;
      return this.#remove(marker, nodes, at, tried >> 1);
    }
    await Promise.all(gone.map(async (discarded) => discarded()));
    return { end, gone: gone.length };
  }

  /** The run has the event loop from now on until this is disposed. */
  #slice(): Disposable & { isOver(): boolean } {
    const start = performance.now();
    return {
      isOver: () => performance.now() - start >= SLICE_MS,
      [Symbol.dispose]: () => {
        const ms = performance.now() - start;
        this.#busyMs += ms;
        this.#longestMs = Math.max(this.#longestMs, ms);
      },
    };
  }
}

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
