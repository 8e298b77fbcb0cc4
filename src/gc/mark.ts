import type { Labels } from '../base/labels.ts';
import type { Node, Vertex } from './collectible.ts';
import { edgesOf, expiryOf, isFlat, isRoot } from './labels.ts';

/** What is there at this moment; no method changes anything. */
export interface Graph {
  nodes(): Iterable<Node>;
  find(node: Node): Vertex | undefined;
}

/** One string for each node. */
export const idOf = ({ type, namespace, key }: Node): string => `${type}\0${namespace}\0${key}`;

/** Reached from a flat lease: of what it refers to, only what it is made of is kept. */
interface Visit {
  readonly node: Node;
  readonly flat: boolean;
}

/** What a node refers to, where that is too much for one step: thousands, by a lease. */
interface Rest {
  readonly nodes: readonly Node[];
  readonly flat: boolean;
  at: number;
}

const NODES_PER_STEP = 32;

/** By type and namespace: large sets, and new strings for each node, would take their time at once. */
export class NodeSet {
  readonly #keys = new Map<string, Map<string, Set<string>>>();

  has({ type, namespace, key }: Node): boolean {
    return this.#keys.get(type)?.get(namespace)?.has(key) === true;
  }

  add({ type, namespace, key }: Node): void {
    const namespaces = this.#keys.get(type) ?? new Map<string, Set<string>>();
    this.#keys.set(type, namespaces);
    const keys = namespaces.get(namespace);
    if (keys === undefined) namespaces.set(namespace, new Set([key]));
    else keys.add(key);
  }
}

/**
 * Finds what is reachable from the roots, in steps between which the graph may change.
 *
 * What changes is touched in the same turn, and a touched node is marked and looked at anew. So there
 * is never an edge from a node that was looked at to one that nobody will mark, and when nothing waits
 * any more, all that is reachable is marked. What lost its last reference meanwhile may be marked too.
 */
export class Marker {
  readonly #graph: Graph;
  /** Nanoseconds since the epoch: what expires later has not expired for this run. */
  readonly #now: bigint;
  readonly #scan: Iterator<Node>;
  #scanned = false;
  readonly #marked = new NodeSet();
  readonly #markedFlat = new NodeSet();
  readonly #waiting: Visit[] = [];
  readonly #rests: Rest[] = [];
  /** By a node's id, those whose own labels say that it refers to them. */
  readonly #backReferences = new Map<string, Node[]>();
  #nextExpiry: bigint | undefined;

  constructor(graph: Graph, now: bigint) {
    this.#graph = graph;
    this.#now = now;
    this.#scan = graph.nodes()[Symbol.iterator]();
  }

  /** Nothing waits: what is not marked now is unreachable now. */
  get isDone(): boolean {
    return this.#scanned && this.#waiting.length === 0 && this.#rests.length === 0;
  }

  isMarked(node: Node): boolean {
    return this.#marked.has(node) || this.#markedFlat.has(node);
  }

  /** When the next of the roots ends being one, of those seen. */
  get nextExpiry(): bigint | undefined {
    return this.#nextExpiry;
  }

  /** Looks at one node. Roots and back references of the whole graph come first. */
  step(): void {
    if (this.#scanned) {
      const visit = this.#waiting.pop();
      if (visit === undefined) this.#takeFromRest();
      else this.#visit(visit);
      return;
    }
    const next = this.#scan.next();
    if (next.done === true) this.#scanned = true;
    else this.#look(next.value);
  }

  /** The barrier: the node is new, changed, or referred to anew; or a request builds on it. */
  touch(node: Node): void {
    this.#marked.add(node);
    this.#waiting.push({ node, flat: false });
  }

  /** All that a node leads to at this moment; undefined when it is not there. */
  referencesOf(node: Node): readonly Node[] | undefined {
    const vertex = this.#graph.find(node);
    if (vertex === undefined) return undefined;
    const found = [...vertex.refersTo, ...(this.#backReferences.get(idOf(node)) ?? [])];
    if (!mayRefer(node)) return found;
    return [...found, ...this.#byLabels(node, vertex.labels)];
  }

  /** Once for each node: is it a root, and who refers to it by a label of its own? */
  #look(node: Node): void {
    const vertex = this.#graph.find(node);
    if (vertex === undefined) return;
    this.#keepIfRoot(node, vertex);
    if (!mayRefer(node)) return;
    for (const from of edgesOf(node.namespace, vertex.labels).referredBy) {
      const id = idOf(from);
      const known = this.#backReferences.get(id);
      if (known === undefined) this.#backReferences.set(id, [node]);
      else known.push(node);
      if (this.#marked.has(from)) this.#mark(node, false);
    }
  }

  #keepIfRoot(node: Node, { root, labels }: Vertex): void {
    const end = endOf(root, labels);
    if (root === 'never') return;
    const isKept = root === 'with gc.root' ? isRoot(labels) : end === undefined || end >= this.#now;
    if (!isKept) return;
    this.#mark(node, false);
    if (end === undefined) return;
    if (this.#nextExpiry === undefined || end < this.#nextExpiry) this.#nextExpiry = end;
  }

  #mark(node: Node, flat: boolean): void {
    if (this.#marked.has(node) || (flat && this.#markedFlat.has(node))) return;
    (flat ? this.#markedFlat : this.#marked).add(node);
    this.#waiting.push({ node, flat });
  }

  /** What the labels of a node lead to; conditions as they are at this moment. */
  #byLabels(node: Node, labels: Labels): readonly Node[] {
    const { refersTo, conditions } = edgesOf(node.namespace, labels);
    if (conditions.length === 0) return refersTo;
    const fulfilled = conditions.filter(({ node: to, holds }) => {
      const snapshot = this.#graph.find(to);
      return snapshot !== undefined && holds(snapshot.labels, this.#now);
    });
    return [...refersTo, ...fulfilled.map(({ node: to }) => to)];
  }

  #takeFromRest(): void {
    const rest = this.#rests.at(-1);
    if (rest === undefined) return;
    const end = rest.at + NODES_PER_STEP;
    for (const to of rest.nodes.slice(rest.at, end)) this.#mark(to, rest.flat);
    rest.at = end;
    if (end >= rest.nodes.length) this.#rests.pop();
  }

  #visit({ node, flat }: Visit): void {
    if (!flat && this.#backReferences.size > 0) {
      for (const from of this.#backReferences.get(idOf(node)) ?? []) this.#mark(from, false);
    }
    const vertex = this.#graph.find(node);
    // A reference to what is not there is no error.
    if (vertex === undefined) return;
    const { labels, refersTo } = vertex;
    const flatFrom = node.type === 'leases' ? isFlat(labels) : flat;
    if (refersTo.length > NODES_PER_STEP) {
      this.#rests.push({ nodes: refersTo, flat: flatFrom, at: 0 });
    } else {
      for (const to of refersTo) this.#mark(to, flatFrom);
    }
    if (flat || !mayRefer(node)) return;
    for (const to of this.#byLabels(node, labels)) this.#mark(to, false);
  }
}

/** The labels of a lease refer to nothing. */
const mayRefer = ({ type }: Node): boolean => type !== 'leases';

/** When a root ends being one; undefined: never. */
export function endOf(root: Vertex['root'], labels: Vertex['labels']): bigint | undefined {
  if (typeof root === 'object') return root.until;
  return root === 'until gc.expire' ? expiryOf(labels) : undefined;
}
