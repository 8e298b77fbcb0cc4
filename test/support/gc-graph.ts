// Random graphs of what is collected, and what of them is reachable, written down once more.
import fc from 'fast-check';
import type { Labels } from '../../src/base/labels.ts';
import type { Node, RootRule, Vertex } from '../../src/gc/collectible.ts';
import { idOf, type Graph } from '../../src/gc/mark.ts';

export const NOW = Date.parse('2026-01-01T00:00:00Z');
const TIMES = [-1, 1].map((hours) => new Date(NOW + hours * 3_600_000).toISOString());
const KEYS = ['a', 'b', 'c', 'd'];
const TYPES = ['content', 'images', 'snapshots/native', 'leases', 'containers', 'ingests'] as const;
type Type = (typeof TYPES)[number];

export const node = fc.record<Node>({
  type: fc.constantFrom(...TYPES),
  namespace: fc.constantFrom('one', 'two'),
  key: fc.constantFrom(...KEYS),
});

const key = fc.constantFrom(...KEYS);
const label: fc.Arbitrary<readonly [string, string]> = fc.oneof(
  fc.tuple(
    fc.constantFrom(
      'containerd.io/gc.ref.content',
      'containerd.io/gc.ref.content.l.0',
      'containerd.io/gc.ref.content/config',
      'containerd.io/gc.ref.contents',
      'containerd.io/gc.ref.snapshot.native',
      'containerd.io/gc.ref.snapshot.native/x',
      'containerd.io/gc.ref.image',
      'containerd.io/gc.ref.image.1',
      'containerd.io/gc.bref.content',
      'containerd.io/gc.bref.image.x',
      'containerd.io/gc.bref.container/y',
      'containerd.io/gc.bref.snapshot.native',
    ),
    key,
  ),
  fc.constant(['containerd.io/gc.root', 'x'] as const),
  fc.constant(['containerd.io/gc.flat', 'x'] as const),
  fc.tuple(fc.constant('containerd.io/gc.expire'), fc.constantFrom('never', ...TIMES)),
  fc.tuple(
    fc.constant('containerd.io/gc.cond.snapshot.native'),
    key.map((name) => `usedat<30m,usedat>90m|${name}`),
  ),
  fc.tuple(fc.constant('containerd.io/gc.cond.value-usedat'), fc.constantFrom(...TIMES)),
);

export const state = fc.record({
  node,
  labels: fc.array(label, { maxLength: 3 }),
  to: fc.array(fc.record({ type: fc.constantFrom(...TYPES), key }), { maxLength: 2 }),
});

interface Made {
  readonly node: Node;
  readonly labels: readonly (readonly [string, string])[];
  readonly to: readonly { readonly type: Type; readonly key: string }[];
}

const REFERS: Readonly<Record<Type, readonly Type[]>> = {
  content: [],
  images: ['content'],
  'snapshots/native': ['snapshots/native'],
  leases: ['content', 'images', 'snapshots/native', 'ingests'],
  containers: ['snapshots/native'],
  ingests: [],
};
const RULES: Readonly<Record<Type, RootRule>> = {
  content: 'with gc.root',
  images: 'until gc.expire',
  'snapshots/native': 'with gc.root',
  leases: 'until gc.expire',
  containers: 'always',
  ingests: { until: 0n },
};

export class Things implements Graph {
  readonly all = new Map<string, { readonly node: Node; readonly vertex: Vertex }>();

  put({ node: at, labels, to }: Made): void {
    const type = at.type as Type;
    const refersTo = to
      .filter((each) => REFERS[type].includes(each.type))
      .map((each) => ({ ...each, namespace: at.namespace }));
    const vertex = { root: RULES[type], createdAt: 0n, labels: new Map(labels), refersTo };
    this.all.set(idOf(at), { node: at, vertex });
  }
  *nodes(): Iterable<Node> {
    for (const { node: each } of this.all.values()) yield each;
  }
  find(at: Node): Vertex | undefined {
    return this.all.get(idOf(at))?.vertex;
  }
}

interface Reached {
  readonly node: Node;
  readonly flat: boolean;
}

/** Where a thing leads, written down once more. */
function leadsTo(things: Things, { node: at, flat }: Reached): readonly Reached[] {
  const found: Reached[] = [];
  const vertex = things.find(at);
  if (!flat) {
    for (const { node: other, vertex: its } of things.all.values()) {
      if (other.namespace !== at.namespace || other.type === 'leases') continue;
      for (const [name, value] of its.labels) {
        if (value === at.key && BACK[name] === at.type) found.push({ node: other, flat: false });
      }
    }
  }
  if (vertex === undefined) return found;
  const lease = at.type === 'leases';
  const isFlat = lease ? vertex.labels.has('containerd.io/gc.flat') : flat;
  for (const to of vertex.refersTo) found.push({ node: to, flat: isFlat });
  if (flat || lease) return found;
  for (const [name, value] of vertex.labels) {
    const type = FORTH[name];
    if (type !== undefined) found.push({ node: { ...at, type, key: value }, flat: false });
    if (name !== 'containerd.io/gc.cond.snapshot.native') continue;
    const to = { ...at, type: 'snapshots/native', key: value.split('|')[1] ?? '' };
    // Used an hour ago, or in an hour: the first is neither, the second is "less than 30 minutes ago".
    const used = things.find(to)?.labels.get('containerd.io/gc.cond.value-usedat');
    if (used === TIMES[1]) found.push({ node: to, flat: false });
  }
  return found;
}

export function roots(things: Things): readonly Node[] {
  const expired = (labels: Labels): boolean => labels.get('containerd.io/gc.expire') === TIMES[0];
  return Array.from(things.all.values())
    .filter(({ node: each, vertex: { labels } }) => {
      if (each.type === 'containers') return true;
      if (each.type === 'leases' || each.type === 'images') return !expired(labels);
      return each.type !== 'ingests' && labels.has('containerd.io/gc.root');
    })
    .map(({ node: each }) => each);
}

/** How far each thing is from the nearest of some, by its id, over a graph that stands still. */
export function distances(things: Things, from: readonly Node[]): ReadonlyMap<string, number> {
  const far = new Map<string, number>();
  const seen = new Set<string>();
  let ring: readonly Reached[] = from.map((each) => ({ node: each, flat: false }));
  for (let distance = 0; ring.length > 0; distance++) {
    const fresh: Reached[] = [];
    for (const each of ring) {
      const state = `${each.flat} ${idOf(each.node)}`;
      if (seen.has(state)) continue;
      seen.add(state);
      fresh.push(each);
      if (!far.has(idOf(each.node))) far.set(idOf(each.node), distance);
    }
    ring = fresh.flatMap((each) => leadsTo(things, each));
  }
  return far;
}

/** What is kept: what a root leads to, or what was touched. */
export const reachable = (things: Things, touched: readonly Node[] = []): ReadonlySet<string> =>
  new Set(distances(things, [...roots(things), ...touched]).keys());

const FORTH: Readonly<Record<string, string | undefined>> = {
  'containerd.io/gc.ref.content': 'content',
  'containerd.io/gc.ref.content.l.0': 'content',
  'containerd.io/gc.ref.content/config': 'content',
  'containerd.io/gc.ref.snapshot.native': 'snapshots/native',
  'containerd.io/gc.ref.snapshot.native/x': 'snapshots/native',
  'containerd.io/gc.ref.image': 'images',
  'containerd.io/gc.ref.image.1': 'images',
};
const BACK: Readonly<Record<string, string | undefined>> = {
  'containerd.io/gc.bref.content': 'content',
  'containerd.io/gc.bref.image.x': 'images',
  'containerd.io/gc.bref.container/y': 'containers',
  'containerd.io/gc.bref.snapshot.native': 'snapshots/native',
};
