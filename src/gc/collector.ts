import type { Clock } from '../base/clock.ts';
import { isOpError, OpError } from '../base/errors.ts';
import type { MetadataStore } from '../metadata/metadata.ts';
import type { Collectible, Discarded, Node, Vertex, Weight } from './collectible.ts';
import { idOf, Marker, type Graph } from './mark.ts';
import { inSlices, slice, type Pace } from './slices.ts';
import { SweepOrder } from './sweep-order.ts';

/** So many nodes are removed in one batch at most, which is one turn: a slice ends it earlier. */
const NODES_PER_BATCH = 256;

/** What a run came to. */
export interface RunResult {
  readonly removed: readonly Node[];
  /** What they took on the disk, where it was asked for, and they had it alone. */
  readonly weights: ReadonlyMap<Node, number>;
  /** What went below the nodes, with its bytes. */
  readonly swept: readonly Swept[];
  /** How long the run had the event loop, all its slices together, and the longest, in milliseconds. */
  readonly busyMs: number;
  readonly longestMs: number;
  readonly elapsedMs: number;
  /** When the next root ends being one, in nanoseconds since the epoch. */
  readonly nextExpiry: bigint | undefined;
}

export interface Swept {
  readonly type: string;
  readonly key: string;
  readonly bytes: number;
}

/** A graph that changes while a marker works. */
export interface LiveGraph extends Graph {
  /** What requests build on at this moment: it is kept. */
  held(): Iterable<Node>;
  /** From here on the marker is told of what changes. */
  follow(marker: Marker): Disposable;
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
export class Collector implements LiveGraph {
  readonly #dependencies: CollectorDependencies;
  readonly #collectibles = new Map<string, Collectible>();
  /** How many requests build on a node, by its id. */
  readonly #holds = new Map<string, { readonly node: Node; count: number }>();
  readonly #markers = new Set<Marker>();
  #lastRun: bigint | undefined;

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

  /** @see Collectible.weigh */
  weigh({ type, namespace, key }: Node): Weight | Promise<Weight> {
    return this.#collectibles.get(type)?.weigh?.(namespace, key) ?? NOTHING;
  }

  /** What is on the disk below the nodes, for none of them: the end of the next run gives it back. */
  *leftovers(): Iterable<Swept> {
    for (const collectible of this.#collectibles.values()) {
      for (const [key, bytes] of collectible.leftovers?.() ?? []) {
        yield { type: collectible.type, key, bytes };
      }
    }
  }

  /** When the last run ended that did what it should, in nanoseconds since the epoch: what is there, it kept. */
  get lastRun(): bigint | undefined {
    return this.#lastRun;
  }

  touch(node: Node): void {
    for (const marker of this.#markers) marker.touch(node);
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

  *held(): Iterable<Node> {
    for (const { node } of this.#holds.values()) yield node;
  }

  follow(marker: Marker): Disposable {
    this.#markers.add(marker);
    return { [Symbol.dispose]: () => void this.#markers.delete(marker) };
  }

  /**
   * Ends the run under way, if any. A change that is taken back makes edges and roots again that nobody
   * touched.
   */
  abandon(): void {
    for (const marker of this.#markers) marker.abandon();
  }

  /**
   * One at a time.
   * @param isWeighed whether to say how much goes from the disk: some of it has to be measured first
   * @throws OpError Unavailable when it was abandoned
   */
  async run(isWeighed = false): Promise<RunResult> {
    const began = performance.now();
    let [busyMs, longestMs] = [0, 0];
    const pace = {
      ended: (ms: number) => {
        busyMs += ms;
        longestMs = Math.max(longestMs, ms);
      },
    };
    const marker = new Marker(this, this.#dependencies.clock.now());
    const removed: Node[] = [];
    const weights = new Map<Node, number>();
    {
      using _following = this.follow(marker);
      const left = await this.unreachable(this, marker, pace);
      if (isWeighed) await this.#weighAlone(left, weights);
      for (let at = 0; at < left.length;) {
        await this.mark(marker, pace);
        at = await this.#remove(left, at, { marker, pace, removed });
      }
    }
    const swept: Swept[] = [];
    for (const collectible of this.#collectibles.values()) {
      for (const [key, bytes] of (await collectible.swept?.()) ?? []) {
        swept.push({ type: collectible.type, key, bytes });
      }
    }
    this.#lastRun = this.#dependencies.clock.now();
    return {
      removed,
      weights,
      swept,
      busyMs,
      longestMs,
      elapsedMs: performance.now() - began,
      nextExpiry: marker.nextExpiry,
    };
  }

  /**
   * What nobody can reach, in the order in which a run removes it.
   * @param graph this one, or what it would be without some of its nodes
   * @param marker a new one over the graph, which follows
   * @throws OpError Unavailable when it was abandoned
   */
  async unreachable(graph: Graph, marker: Marker, pace: Pace): Promise<readonly Node[]> {
    for (const node of this.held()) marker.touch(node);
    await this.mark(marker, pace);
    const order = new SweepOrder({
      nodes: () => graph.nodes(),
      isMarked: (node) => marker.isMarked(node),
      referencesOf: (node) => marker.referencesOf(node),
    });
    await inSlices(() => order.step(), pace);
    return order.result;
  }

  /**
   * Marks until nothing waits; when it resolves, no other has had a turn since.
   * @throws OpError Unavailable when it was abandoned
   */
  async mark(marker: Marker, pace: Pace): Promise<void> {
    await inSlices(() => {
      requireCurrent(marker);
      if (marker.isDone) return false;
      marker.step();
      return true;
    }, pace);
  }

  /** What several nodes stand on is counted when it goes. */
  async #weighAlone(nodes: readonly Node[], weights: Map<Node, number>): Promise<void> {
    for (let at = 0; at < nodes.length; at += NODES_PER_BATCH) {
      await Promise.all(
        nodes.slice(at, at + NODES_PER_BATCH).map(async (node) => {
          const { bytes, namespaces } = await this.weigh(node);
          if (namespaces === undefined) weights.set(node, bytes);
        }),
      );
    }
  }

  /**
   * Removes the nodes from `at` on, as many as a slice and a record hold; what a request is at work on stays
   * for the next run.
   * @param most so many
   * @returns where the next batch begins
   */
  async #remove(
    nodes: readonly Node[],
    at: number,
    run: Run,
    most = NODES_PER_BATCH,
  ): Promise<number> {
    const { marker, pace, removed } = run;
    let end = at;
    let gone: { readonly node: Node; readonly discarded: Discarded }[] = [];
    const written = this.#dependencies.metadata.update(
      (tx) => {
        using current = slice(pace);
        // On a full disk the change is taken back and made once more, in a later turn.
        [end, gone] = [at, []];
        requireCurrent(marker);
        while (!marker.isDone) marker.step();
        for (const node of nodes.slice(at, at + most)) {
          end++;
          if (marker.isMarked(node)) continue;
          const { type, namespace, key } = node;
          const discarded = this.#collectibles.get(type)?.discard(tx, namespace, key);
          if (discarded !== undefined) gone.push({ node, discarded });
          if (current.isOver()) break;
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
      return this.#remove(nodes, at, run, tried >> 1);
    }
    for (const { node } of gone) removed.push(node);
    await Promise.all(gone.map(async ({ discarded }) => discarded()));
    return end;
  }
}

/** A run under way. */
interface Run {
  readonly marker: Marker;
  readonly pace: Pace;
  /** Gets what has gone. */
  readonly removed: Node[];
}

const NOTHING: Weight = { bytes: 0 };

/** @throws OpError Unavailable */
function requireCurrent(marker: Marker): void {
  if (!marker.isAbandoned) return;
  throw new OpError('Unavailable', 'the collection ended early: try again');
}
