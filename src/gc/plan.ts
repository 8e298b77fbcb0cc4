import { notFound, quote } from '../base/errors.ts';
import type { Node, Vertex, Weight } from './collectible.ts';
import type { Collector } from './collector.ts';
import type { Goes, Kept, PlanPart } from './gc.ts';
import { idOf, Marker, NodeSet, type Graph } from './mark.ts';
import { nextTurn, type Pace } from './slices.ts';
import { Tally } from './tally.ts';

const OBJECTS_PER_PART = 256;
const KEYS_LENGTH_PER_PART = 1 << 20;

interface Asked {
  /** Where the images and leases are. */
  readonly namespace: string;
  readonly without: readonly string[];
  readonly now: () => bigint;
  readonly pace: Pace;
}

/**
 * What a run would remove at this moment, in its order: the first half of a run, over the graph without some
 * of its nodes.
 * @throws OpError NotFound for an image or a lease that is not there; Unavailable when it was abandoned
 */
export async function* plan(collector: Collector, asked: Asked): AsyncIterable<PlanPart> {
  const hidden = new Map<string, Node>();
  for (const name of asked.without) {
    for (const node of imagesAndLeases(collector, asked.namespace, name)) {
      hidden.set(idOf(node), node);
    }
  }
  const tally = new Tally();
  for await (const goes of going(collector, [...hidden.values()], asked)) {
    for (const { node, bytes } of goes) tally.add(node.type, bytes);
    yield { goes };
  }
  const without: Kept[] = [];
  for (const node of hidden.values()) without.push(await keptBy(node, collector, asked));
  yield { totals: tally.totals, without };
}

function imagesAndLeases(collector: Collector, namespace: string, key: string): readonly Node[] {
  const found = ['images', 'leases']
    .map((type) => ({ type, namespace, key }))
    .filter((node) => collector.find(node) !== undefined);
  if (found.length > 0) return found;
  throw notFound(`image or lease ${quote(key)} in the namespace ${quote(namespace)}`);
}

async function* going(
  collector: Collector,
  hidden: readonly Node[],
  { now, pace }: Asked,
): AsyncIterable<readonly Goes[]> {
  const graph = new Without(collector, hidden);
  const marker = new Marker(graph, now());
  let left: readonly Node[];
  {
    using _following = collector.follow(marker);
    left = await collector.unreachable(graph, marker, pace);
  }
  yield* weighed(collector, left, marker);
  for await (const some of parts(collector.leftovers())) {
    yield some.map(({ type, key, bytes }) => ({ node: { type, namespace: '', key }, bytes }));
  }
}

/** A graph as if some of its nodes were gone. */
class Without implements Graph {
  readonly #graph: Graph;
  readonly #hidden = new NodeSet();

  constructor(graph: Graph, hidden: readonly Node[]) {
    this.#graph = graph;
    for (const node of hidden) this.#hidden.add(node);
  }

  *nodes(): Iterable<Node> {
    for (const node of this.#graph.nodes()) if (!this.#hidden.has(node)) yield node;
  }

  find(node: Node): Vertex | undefined {
    return this.#hidden.has(node) ? undefined : this.#graph.find(node);
  }
}

interface Weighed extends Goes {
  /** What it takes on the disk now. */
  readonly takes: number;
}

/** What the disk gets back from nodes when all goes that a marker has not marked. */
async function* weighed(
  collector: Collector,
  nodes: readonly Node[],
  marker: Marker,
): AsyncIterable<readonly Weighed[]> {
  /** What several nodes stand on is counted with the first of them. */
  const counted = new Set<string>();
  const bytesOf = (node: Node, { bytes, namespaces }: Weight): number => {
    if (marker.isMarked(node)) return 0;
    if (namespaces === undefined) return bytes;
    if (namespaces.some((namespace) => marker.isMarked({ ...node, namespace }))) return 0;
    const id = idOf({ ...node, namespace: '' });
    if (counted.has(id)) return 0;
    counted.add(id);
    return bytes;
  };
  for await (const some of parts(nodes)) {
    const weights = await Promise.all(some.map(async (node) => collector.weigh(node)));
    yield some.map((node, at) => {
      const weight = weights[at] ?? { bytes: 0 };
      return { node, bytes: bytesOf(node, weight), takes: weight.bytes };
    });
  }
}

/** Some at a time, with a turn for others behind each; as many as fit well into a message. */
async function* parts<T extends { readonly key: string }>(
  all: Iterable<T>,
): AsyncIterable<readonly T[]> {
  let some: T[] = [];
  let length = 0;
  for (const each of all) {
    some.push(each);
    length += each.key.length;
    if (some.length < OBJECTS_PER_PART && length < KEYS_LENGTH_PER_PART) continue;
    yield some;
    await nextTurn();
    some = [];
    length = 0;
  }
  if (some.length > 0) yield some;
}

/** Of all that a node leads to: what would go with it, were it alone to go, and what would not. */
async function keptBy(node: Node, collector: Collector, { now, pace }: Asked): Promise<Kept> {
  const reached: Node[] = [];
  const known = new NodeSet();
  const below = new Marker(collector, now(), {
    startsAt: () => false,
    reached: ({ node: to }) => {
      if (known.has(to)) return;
      known.add(to);
      reached.push(to);
    },
  });
  const others = new Marker(new Without(collector, [node]), now());
  {
    using _below = collector.follow(below);
    using _others = collector.follow(others);
    below.touch(node);
    await collector.mark(below, pace);
    for (const held of collector.held()) others.touch(held);
    await collector.mark(others, pace);
  }
  let unique = 0;
  let all = 0;
  for await (const some of weighed(collector, reached, others)) {
    for (const { bytes, takes } of some) {
      unique += bytes;
      all += takes;
    }
  }
  return { node, unique, shared: all - unique };
}
