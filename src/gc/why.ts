import { OpError, quote } from '../base/errors.ts';
import { NO_LABELS } from '../base/labels.ts';
import type { Node, Vertex } from './collectible.ts';
import type { LiveGraph } from './collector.ts';
import type { Chain, Link } from './gc.ts';
import { edgesOf, isFlat } from './labels.ts';
import {
  endOf,
  keepsItself,
  Marker,
  mayRefer,
  referencesByLabels,
  type Trace,
  type Visit,
} from './mark.ts';
import { inSlices, type Pace } from './slices.ts';

/** So often a chain may have changed when it was found. */
const ATTEMPTS = 8;
/** So many links are told at each end of a chain. */
const LINKS_MAX = 100;
/** Labels of a lease that are told. */
const LABELS_MAX = 32;
const REQUESTS = 'requests';

/**
 * The shortest chain of references from each kind of root that keeps a node, the shortest of all first.
 *
 * The marker of a collection looks for them, so that they are what a collection goes by: it starts at all
 * roots; then at all but those of the kind that it found, and so on until it finds none. When the first
 * finds none, nothing keeps the node at that moment, also when the graph changes meanwhile. A chain
 * that was found holds in the turn in which it is taken down, or is looked for again.
 * @throws OpError Unavailable when it changes each time
 */
export async function chainsTo(
  node: Node,
  graph: LiveGraph,
  { now, ...pace }: Pace & { readonly now: () => bigint },
): Promise<readonly Chain[]> {
  const chains: Chain[] = [];
  const found = new Set<string>();
  for (let attempts = 0; attempts < ATTEMPTS;) {
    const chain = await nearest(node, { graph, found, now: now() }, pace);
    if (chain === undefined) return chains;
    if (chain === 'changed') {
      attempts++;
      continue;
    }
    found.add(chain.kind);
    chains.push(chain);
  }
  // The kinds that are missing are no part of whether it is kept.
  if (chains.length > 0) return chains;
  throw new OpError(
    'Unavailable',
    `what keeps ${node.type} ${quote(node.key)} changes all the time: try again`,
  );
}

interface Search {
  readonly graph: LiveGraph;
  /** Kinds of roots that are left out. */
  readonly found: ReadonlySet<string>;
  readonly now: bigint;
}

async function nearest(
  node: Node,
  { graph, found, now }: Search,
  pace: Pace,
): Promise<Chain | 'changed' | undefined> {
  const arrival = new Arrival(node, found);
  const marker = new Marker(graph, now, arrival);
  using _following = graph.follow(marker);
  if (!found.has(REQUESTS)) for (const held of graph.held()) marker.touch(held);
  let chain: Chain | 'changed' | undefined;
  await inSlices(() => {
    const { end } = arrival;
    if (marker.isAbandoned) chain = 'changed';
    else if (end !== undefined) chain = chainOf(wayTo(end), { graph, found, now });
    else if (!marker.isDone) {
      marker.step();
      return true;
    }
    return false;
  }, pace);
  return chain;
}

/** Waits for a marker to come to a node. */
class Arrival implements Trace {
  readonly #node: Node;
  readonly #found: ReadonlySet<string>;
  #end: Visit | undefined;

  constructor(node: Node, found: ReadonlySet<string>) {
    this.#node = node;
    this.#found = found;
  }

  startsAt(root: Node): boolean {
    return !this.#found.has(nounOf(root));
  }

  reached(visit: Visit): void {
    if (isSame(visit.node, this.#node)) this.#end ??= visit;
  }

  get end(): Visit | undefined {
    return this.#end;
  }
}

/** From the root on. */
function wayTo(end: Visit): readonly Visit[] {
  const visits: Visit[] = [];
  for (let at: Visit | undefined = end; at !== undefined; at = at.from) visits.push(at);
  return visits.toReversed();
}

/** Undefined for one from a root of a kind that is left out, which was touched meanwhile. */
function chainOf(visits: readonly Visit[], search: Search): Chain | 'changed' | undefined {
  const { graph, now } = search;
  const [first] = visits;
  const root = first === undefined ? undefined : rootOf(first.node, search);
  if (root === undefined) return 'changed';
  if (search.found.has(root.kind)) return undefined;
  const links: Link[] = [];
  for (const [at, to] of visits.entries()) {
    const from = visits[at - 1];
    const by = from === undefined ? '' : referenceBetween(from, to, graph, now);
    if (by === undefined) return 'changed';
    links.push({ node: to.node, by });
  }
  const omitted = Math.max(0, links.length - 2 * LINKS_MAX);
  if (omitted > 0) links.splice(LINKS_MAX, omitted);
  return { ...root, links, omitted };
}

/** One that is held may be a root as well. @returns undefined when it is neither at this moment */
function rootOf(
  node: Node,
  { graph, found, now }: Search,
): Omit<Chain, 'links' | 'omitted'> | undefined {
  const vertex = graph.find(node);
  const isHeld = (): boolean => {
    for (const held of graph.held()) if (isSame(held, node)) return true;
    return false;
  };
  const createdAt = vertex?.createdAt ?? 0n;
  const isRoot = vertex !== undefined && keepsItself(vertex, now);
  if ((!isRoot || found.has(nounOf(node))) && isHeld()) {
    return { kind: REQUESTS, createdAt, expiresAt: undefined, labels: NO_LABELS };
  }
  if (!isRoot) return undefined;
  return {
    kind: nounOf(node),
    createdAt,
    expiresAt: endOf(vertex.root, vertex.labels),
    labels: new Map(node.type === 'leases' ? [...vertex.labels].slice(0, LABELS_MAX) : []),
  };
}

/**
 * How the one refers to the other at this moment, by the rules that a marker goes by; undefined: not any more.
 */
function referenceBetween(
  from: Visit,
  to: Visit,
  graph: LiveGraph,
  now: bigint,
): string | undefined {
  const vertex = graph.find(from.node);
  const isFlatFrom = from.node.type === 'leases' ? vertex && isFlat(vertex.labels) : from.flat;
  const isDirect = [...(vertex?.refersTo ?? [])].some((each) => isSame(each, to.node));
  // What is kept flat is not kept whole.
  if (isDirect && (to.flat || isFlatFrom !== true)) return DIRECT.get(nounOf(from.node));
  if (from.flat) return undefined;
  return byLabel(from.node, vertex, to.node, graph, now) ?? byBackLabel(from.node, to.node, graph);
}

function byLabel(
  from: Node,
  vertex: Vertex | undefined,
  to: Node,
  graph: LiveGraph,
  now: bigint,
): string | undefined {
  if (vertex === undefined || !mayRefer(from)) return undefined;
  for (const [label, value] of vertex.labels) {
    const alone = new Map([[label, value]]);
    const found = referencesByLabels(graph, from, alone, now);
    if (found.some((each) => isSame(each, to))) return label;
  }
  return undefined;
}

/** By a label of the one that is referred to. */
function byBackLabel(from: Node, to: Node, graph: LiveGraph): string | undefined {
  if (!mayRefer(to)) return undefined;
  for (const [label, value] of graph.find(to)?.labels ?? NO_LABELS) {
    const { referredBy } = edgesOf(to.namespace, new Map([[label, value]]));
    if (referredBy.some((each) => isSame(each, from))) return label;
  }
  return undefined;
}

/** What a noun refers to by itself. */
const DIRECT: ReadonlyMap<string, string> = new Map([
  ['images', 'target'],
  ['containers', 'snapshot'],
  ['snapshots', 'parent'],
  ['leases', 'lease'],
]);

const nounOf = ({ type }: Node): string => type.split('/')[0] ?? '';
const isSame = (a: Node, b: Node): boolean =>
  a.key === b.key && a.type === b.type && a.namespace === b.namespace;
