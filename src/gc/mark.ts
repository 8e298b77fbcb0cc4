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

/** What a node refers to, of which thousands are too much for one step. */
interface Rest {
  readonly from: Visit;
  readonly nodes: Iterator<Node>;
  readonly flat: boolean;
}

const NODES_PER_STEP = 32;

/** So many sets hold the keys of one type and namespace. */
const PARTS = 256;

/**
 * By type, namespace and a part of the keys: a large set takes many milliseconds at once when it grows,
 * and a new string for each node would take its time.
 */
export class NodeSet {
  readonly #parts = new Map<string, Map<string, Set<string>[]>>();

  has({ type, namespace, key }: Node): boolean {
    return this.#parts.get(type)?.get(namespace)?.[partOf(key)]?.has(key) === true;
  }

  add({ type, namespace, key }: Node): void {
    const namespaces = this.#parts.get(type) ?? new Map<string, Set<string>[]>();
    this.#parts.set(type, namespaces);
    const parts = namespaces.get(namespace) ?? [];
    namespaces.set(namespace, parts);
    (parts[partOf(key)] ??= new Set()).add(key);
  }
}

function partOf(key: string): number {
  let hash = 0;
  for (let at = 0; at < key.length; at++) hash = (hash * 31 + key.charCodeAt(at)) | 0;
  return (hash ^ (hash >>> 16)) & (PARTS - 1);
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
      if (!this.#take(this.#rest)) this.#rest = undefined;
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

  /** All that a node leads to, as it is when it is taken; undefined when the node is not there. */
  referencesOf(node: Node): Iterable<Node> | undefined {
    const vertex = this.#graph.find(node);
    return vertex && this.#references(node, vertex);
  }

  *#references(node: Node, { labels, refersTo }: Vertex): Iterable<Node> {
    yield* refersTo;
    yield* this.#referringTo(node);
    if (mayRefer(node)) yield* referencesByLabels(this.#graph, node, labels, this.#now);
  }

  /** Those whose own labels say that the node refers to them. */
  #referringTo(node: Node): readonly Node[] {
    if (this.#backReferences.size === 0) return [];
    return this.#backReferences.get(idOf(node)) ?? [];
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

  /** @returns false when there are no more */
  #take({ from, nodes, flat }: Rest): boolean {
    for (let taken = 0; taken < NODES_PER_STEP; taken++) {
      const next = nodes.next();
      if (next.done === true) return false;
      this.#mark(next.value, flat, from);
    }
    return true;
  }

  #visit(visit: Visit): void {
    const { node, flat } = visit;
    if (!flat) for (const to of this.#referringTo(node)) this.#mark(to, false, visit);
    const vertex = this.#graph.find(node);
    // A reference to what is not there is no error.
    if (vertex === undefined) return;
    const { labels, refersTo } = vertex;
    const flatFrom = node.type === 'leases' ? isFlat(labels) : flat;
    const rest = { from: visit, nodes: refersTo[Symbol.iterator](), flat: flatFrom };
    if (this.#take(rest)) this.#rest = rest;
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
