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

/** What a node refers to, of which thousands are too much for one step. */
interface Rest {
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

  /** All that a node leads to, as it is when it is taken; undefined when the node is not there. */
  referencesOf(node: Node): Iterable<Node> | undefined {
    const vertex = this.#graph.find(node);
    return vertex && this.#references(node, vertex);
  }

  *#references(node: Node, { labels, refersTo }: Vertex): Iterable<Node> {
    yield* refersTo;
    yield* this.#referringTo(node);
    if (mayRefer(node)) yield* this.#byLabels(node, labels);
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
      if (this.#marked.has(from)) this.#mark(node, false);
    }
  }

  #keepIfRoot(node: Node, { root, labels }: Vertex): void {
    const end = endOf(root, labels);
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
    if (rest !== undefined && !this.#take(rest)) this.#rests.pop();
  }

  /** @returns false when there are no more */
  #take({ nodes, flat }: Rest): boolean {
    for (let taken = 0; taken < NODES_PER_STEP; taken++) {
      const next = nodes.next();
      if (next.done === true) return false;
      this.#mark(next.value, flat);
    }
    return true;
  }

  #visit({ node, flat }: Visit): void {
    if (!flat) for (const from of this.#referringTo(node)) this.#mark(from, false);
    const vertex = this.#graph.find(node);
    // A reference to what is not there is no error.
    if (vertex === undefined) return;
    const { labels, refersTo } = vertex;
    const flatFrom = node.type === 'leases' ? isFlat(labels) : flat;
    const rest = { nodes: refersTo[Symbol.iterator](), flat: flatFrom };
    if (this.#take(rest)) this.#rests.push(rest);
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
