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
export interface Visit {
  readonly node: Node;
  readonly flat: boolean;
  /** Noted for a trace: undefined for a root, and for what was touched. */
  readonly from: Visit | undefined;
}

/** Looks on while a marker works. One that is looked at goes by the distance from the roots, nearest first. */
export interface Trace {
  /** Whether to begin at this root as well. */
  startsAt(root: Node): boolean;
  reached(visit: Visit): void;
}

/** What a node refers to, where that is too much for one step: thousands, by a lease. */
interface Rest {
  readonly from: Visit;
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
  readonly #trace: Trace | undefined;
  readonly #scan: Iterator<Node>;
  #scanned = false;
  #isAbandoned = false;
  readonly #marked = new NodeSet();
  readonly #markedFlat = new NodeSet();
  readonly #waiting: Visit[] = [];
  /** Where the next is taken from, nearest first; else it is the last. */
  #first = 0;
  #rest: Rest | undefined;
  /** By a node's id, those whose own labels say that it refers to them. */
  readonly #backReferences = new Map<string, Node[]>();
  #nextExpiry: bigint | undefined;

  constructor(graph: Graph, now: bigint, trace?: Trace) {
    this.#graph = graph;
    this.#now = now;
    this.#trace = trace;
    this.#scan = graph.nodes()[Symbol.iterator]();
  }

  /** Nothing waits: what is not marked now is unreachable now. */
  get isDone(): boolean {
    return this.#scanned && this.#waiting.length === this.#first && this.#rest === undefined;
  }

  /** What it found counts for nothing: the graph has changed without its knowledge. */
  abandon(): void {
    this.#isAbandoned = true;
  }
  get isAbandoned(): boolean {
    return this.#isAbandoned;
  }

  /** All roots and back references are known: `referencesOf` tells all. */
  get hasScanned(): boolean {
    return this.#scanned;
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
    if (!this.#scanned) {
      const next = this.#scan.next();
      if (next.done === true) this.#scanned = true;
      else this.#look(next.value);
    } else if (this.#rest !== undefined) {
      this.#takeFrom(this.#rest);
    } else {
      const visit = this.#next();
      if (visit !== undefined) this.#visit(visit);
    }
  }

  /** The barrier: the node is new, changed, or referred to anew; or a request builds on it. */
  touch(node: Node): void {
    this.#marked.add(node);
    this.#wait(node, false, undefined);
  }

  /** All that a node leads to at this moment; undefined when it is not there. */
  referencesOf(node: Node): readonly Node[] | undefined {
    const vertex = this.#graph.find(node);
    if (vertex === undefined) return undefined;
    const found = [...vertex.refersTo, ...(this.#backReferences.get(idOf(node)) ?? [])];
    if (!mayRefer(node)) return found;
    return [...found, ...referencesByLabels(this.#graph, node, vertex.labels, this.#now)];
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
    }
  }

  #keepIfRoot(node: Node, vertex: Vertex): void {
    if (!keepsItself(vertex, this.#now) || this.#trace?.startsAt(node) === false) return;
    this.#mark(node, false, undefined);
    const end = endOf(vertex.root, vertex.labels);
    if (end === undefined) return;
    if (this.#nextExpiry === undefined || end < this.#nextExpiry) this.#nextExpiry = end;
  }

  #mark(node: Node, flat: boolean, from: Visit | undefined): void {
    if (this.#marked.has(node) || (flat && this.#markedFlat.has(node))) return;
    (flat ? this.#markedFlat : this.#marked).add(node);
    this.#wait(node, flat, from);
  }

  #wait(node: Node, flat: boolean, from: Visit | undefined): void {
    // Else all visits would stay in memory.
    const visit = { node, flat, from: this.#trace === undefined ? undefined : from };
    this.#waiting.push(visit);
    this.#trace?.reached(visit);
  }

  #next(): Visit | undefined {
    return this.#trace === undefined ? this.#waiting.pop() : this.#waiting[this.#first++];
  }

  #takeFrom(rest: Rest): void {
    const end = rest.at + NODES_PER_STEP;
    for (const to of rest.nodes.slice(rest.at, end)) this.#mark(to, rest.flat, rest.from);
    rest.at = end;
    if (end >= rest.nodes.length) this.#rest = undefined;
  }

  #visit(visit: Visit): void {
    const { node, flat } = visit;
    if (!flat && this.#backReferences.size > 0) {
      for (const to of this.#backReferences.get(idOf(node)) ?? []) this.#mark(to, false, visit);
    }
    const vertex = this.#graph.find(node);
    // A reference to what is not there is no error.
    if (vertex === undefined) return;
    const { labels, refersTo } = vertex;
    const flatFrom = node.type === 'leases' ? isFlat(labels) : flat;
    if (refersTo.length > NODES_PER_STEP) {
      this.#rest = { from: visit, nodes: refersTo, flat: flatFrom, at: 0 };
    } else {
      for (const to of refersTo) this.#mark(to, flatFrom, visit);
    }
    if (flat || !mayRefer(node)) return;
    for (const to of referencesByLabels(this.#graph, node, labels, this.#now)) {
      this.#mark(to, false, visit);
    }
  }
}

/** What the labels of a node lead to; conditions as they are at this moment. */
export function referencesByLabels(
  graph: Graph,
  node: Node,
  labels: Labels,
  now: bigint,
): readonly Node[] {
  const { refersTo, conditions } = edgesOf(node.namespace, labels);
  if (conditions.length === 0) return refersTo;
  const fulfilled = conditions.filter(({ node: to, holds }) => {
    const snapshot = graph.find(to);
    return snapshot !== undefined && holds(snapshot.labels, now);
  });
  return [...refersTo, ...fulfilled.map(({ node: to }) => to)];
}

/** Whether it is a root at this moment. */
export function keepsItself({ root, labels }: Vertex, now: bigint): boolean {
  if (root === 'never') return false;
  if (root === 'with gc.root') return isRoot(labels);
  const end = endOf(root, labels);
  return end === undefined || end >= now;
}

/** The labels of a lease refer to nothing. */
export const mayRefer = ({ type }: Node): boolean => type !== 'leases';

/** When a root ends being one; undefined: never. */
export function endOf(root: Vertex['root'], labels: Vertex['labels']): bigint | undefined {
  if (typeof root === 'object') return root.until;
  return root === 'until gc.expire' ? expiryOf(labels) : undefined;
}
