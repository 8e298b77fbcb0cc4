import type { Node, Vertex } from './collectible.ts';
import { isFlat } from './labels.ts';
import { idOf, keepsItself, Marker, type Graph } from './mark.ts';
import type { Turns } from './slices.ts';

/** The one root that keeps a node, or that there are more. */
export type Keeper = Node | 'several';

interface Visit {
  readonly node: Node;
  /** By way of a flat lease: only what the node is made of is kept too. */
  readonly flat: boolean;
}

/** An edge, from its end. */
interface Referrer {
  readonly from: Node;
  /** `from` is made of it; otherwise a label says that it refers to it. */
  readonly isMade: boolean;
}

/** All that leads to a node. */
export interface Above {
  readonly nodes: readonly Node[];
  /** The roots among them. */
  readonly roots: readonly Node[];
}

/**
 * Who keeps what, for whoever asks: the edges are the collector's. The graph may change while it is looked at;
 * the answer is then of no one moment.
 */
export class Keepers {
  readonly #graph: Graph;
  readonly #marker: Marker;
  readonly #turns: Turns;
  readonly #roots = new Map<string, Node>();
  #referrers: ReadonlyMap<string, readonly Referrer[]> | undefined;

  private constructor(graph: Graph, marker: Marker, turns: Turns) {
    this.#graph = graph;
    this.#marker = marker;
    this.#turns = turns;
  }

  /** @param now nanoseconds since the epoch: what has expired keeps nothing */
  static async of(graph: Graph, now: bigint, turns: Turns): Promise<Keepers> {
    const marker = new Marker(graph, now);
    while (!marker.hasScanned) {
      marker.step();
      await turns.step();
    }
    const keepers = new Keepers(graph, marker, turns);
    for (const node of graph.nodes()) {
      const vertex = graph.find(node);
      if (vertex !== undefined && keepsItself(vertex, now)) keepers.#roots.set(idOf(node), node);
      await turns.step();
    }
    return keepers;
  }

  get graph(): Graph {
    return this.#graph;
  }

  roots(): Iterable<Node> {
    return this.#roots.values();
  }

  /**
   * Tells of each node that is kept which root alone would take it along, were that root gone: what lies behind
   * another root is that one's. A node is looked at a few times at most, however many roots there are.
   */
  async keeperOfEach(): Promise<KeeperMap> {
    const found = new KeeperMap();
    const waiting: Visit[] = [];
    const emit = async (from: Visit, keeper: Keeper): Promise<void> => {
      for (const to of this.#referencesOf(from)) {
        if (found.add(idOf(to.node), to.flat, keeper) && !this.#roots.has(idOf(to.node))) {
          waiting.push(to);
        }
        await this.#turns.step();
      }
    };
    for (const [id, root] of this.#roots) {
      found.add(id, false, root);
      await emit({ node: root, flat: false }, root);
    }
    for (let visit = waiting.pop(); visit !== undefined; visit = waiting.pop()) {
      const keeper = found.by(idOf(visit.node), visit.flat);
      if (keeper !== undefined) await emit(visit, keeper);
    }
    return found;
  }

  /** A node, and all that it leads to. */
  async below(node: Node): Promise<readonly Node[]> {
    const seen = new Map<string, Visit>();
    const waiting: Visit[] = [{ node, flat: false }];
    for (let visit = waiting.pop(); visit !== undefined; visit = waiting.pop()) {
      await this.#turns.step();
      const id = idOf(visit.node);
      const before = seen.get(id);
      // What was reached flat is looked at again when all of it is kept.
      if (before !== undefined && (!before.flat || visit.flat)) continue;
      seen.set(id, visit);
      for (const to of this.#referencesOf(visit)) waiting.push(to);
    }
    return Array.from(seen.values(), (visit) => visit.node);
  }

  /** All that leads to a node, itself first. */
  async above(node: Node): Promise<Above> {
    this.#referrers ??= await this.#allReferrers();
    const seen = new Map<string, Visit>();
    // Here `flat` says that a flat lease above keeps the node too: all edges on the way are of what things are made of.
    const waiting: Visit[] = [{ node, flat: true }];
    for (let visit = waiting.pop(); visit !== undefined; visit = waiting.pop()) {
      await this.#turns.step();
      const id = idOf(visit.node);
      const before = seen.get(id);
      if (before !== undefined && (before.flat || !visit.flat)) continue;
      seen.set(id, visit);
      for (const { from, isMade } of this.#referrers.get(id) ?? []) {
        const flat = visit.flat && isMade;
        // A lease refers to nothing by its labels: what it keeps flat, it keeps if the rest of the way is flat.
        const isThrough = from.type !== 'leases' || visit.flat || !this.#isFlatLease(from);
        if (isThrough) waiting.push({ node: from, flat });
      }
    }
    const nodes = Array.from(seen.values(), (visit) => visit.node);
    return { nodes, roots: nodes.filter((each) => this.#roots.has(idOf(each))) };
  }

  /** What a node itself refers to. */
  references(node: Node): readonly Node[] {
    return this.#referencesOf({ node, flat: false }).map((to) => to.node);
  }

  async #allReferrers(): Promise<ReadonlyMap<string, readonly Referrer[]>> {
    const referrers = new Map<string, Referrer[]>();
    for (const from of this.#graph.nodes()) {
      const vertex = this.#graph.find(from);
      if (vertex === undefined) continue;
      const made = [...vertex.refersTo].length;
      for (const [at, to] of this.references(from).entries()) {
        const referrer = { from, isMade: at < made };
        const known = referrers.get(idOf(to));
        if (known === undefined) referrers.set(idOf(to), [referrer]);
        else known.push(referrer);
        await this.#turns.step();
      }
      await this.#turns.step();
    }
    return referrers;
  }

  /** Those that it is made of first. */
  #referencesOf({ node, flat }: Visit): readonly Visit[] {
    const vertex = this.#graph.find(node);
    if (vertex === undefined) return [];
    const flatBelow = flat || isFlatLease(node, vertex);
    const made = Array.from(vertex.refersTo, (to) => ({ node: to, flat: flatBelow }));
    if (flat) return made;
    const all = [...(this.#marker.referencesOf(node) ?? [])];
    return [...made, ...all.slice(made.length).map((to) => ({ node: to, flat: false }))];
  }

  #isFlatLease(node: Node): boolean {
    const vertex = this.#graph.find(node);
    return vertex !== undefined && isFlatLease(node, vertex);
  }
}

const isFlatLease = ({ type }: Node, { labels }: Vertex): boolean =>
  type === 'leases' && isFlat(labels);

/** Keepers by a node's id; those that keep it flat pass less on. */
export class KeeperMap {
  readonly #full = new Map<string, Keeper>();
  readonly #flat = new Map<string, Keeper>();

  of(node: Node): Keeper | undefined {
    const id = idOf(node);
    const flat = this.#flat.get(id);
    return flat === undefined ? this.#full.get(id) : joined(this.#full.get(id), flat);
  }

  by(id: string, flat: boolean): Keeper | undefined {
    return (flat ? this.#flat : this.#full).get(id);
  }

  /** @returns whether that is new */
  add(id: string, flat: boolean, keeper: Keeper): boolean {
    const before = this.by(id, flat);
    const after = joined(before, keeper);
    (flat ? this.#flat : this.#full).set(id, after);
    return after !== before;
  }
}

export const joined = (a: Keeper | undefined, b: Keeper): Keeper =>
  a === undefined || a === b ? b : 'several';
