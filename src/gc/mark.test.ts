// The marker on random graphs that change while it works: what is reachable at the end is marked, and what was
// unreachable all the time, and not touched, is not.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Labels } from '../base/labels.ts';
import type { Node, RootRule, Vertex } from './collectible.ts';
import { idOf, Marker, type Graph } from './mark.ts';

const NOW = Date.parse('2026-01-01T00:00:00Z');
const TIMES = [-1, 1].map((hours) => new Date(NOW + hours * 3_600_000).toISOString());
const KEYS = ['a', 'b', 'c', 'd'];
const TYPES = ['content', 'images', 'snapshots/native', 'leases', 'containers', 'ingests'] as const;
type Type = (typeof TYPES)[number];

const node = fc.record<Node>({
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

const state = fc.record({
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

class Things implements Graph {
  readonly all = new Map<string, { readonly node: Node; readonly vertex: Vertex }>();

  put({ node: at, labels, to }: Made): void {
    const type = at.type as Type;
    const refersTo = to
      .filter((each) => REFERS[type].includes(each.type))
      .map((each) => ({ ...each, namespace: at.namespace }));
    const vertex = { root: RULES[type], labels: new Map(labels), refersTo };
    this.all.set(idOf(at), { node: at, vertex });
  }
  *nodes(): Iterable<Node> {
    for (const { node: each } of this.all.values()) yield each;
  }
  find(at: Node): Vertex | undefined {
    return this.all.get(idOf(at))?.vertex;
  }
}

/** What containerd keeps, written down once more: a plain recursion over a graph that stands still. */
function reachable(things: Things, touched: readonly Node[] = []): ReadonlySet<string> {
  const kept = new Set<string>();
  const whole = new Set<string>();
  const expired = (labels: Labels): boolean => labels.get('containerd.io/gc.expire') === TIMES[0];
  const keep = (at: Node, flat: boolean): void => {
    const id = idOf(at);
    if (whole.has(id) || (flat && kept.has(id))) return;
    kept.add(id);
    if (!flat) whole.add(id);
    const vertex = things.find(at);
    if (!flat) {
      for (const { node: other, vertex: its } of things.all.values()) {
        if (other.namespace !== at.namespace || other.type === 'leases') continue;
        for (const [name, value] of its.labels) {
          if (value === at.key && BACK[name] === at.type) keep(other, false);
        }
      }
    }
    if (vertex === undefined) return;
    const lease = at.type === 'leases';
    for (const to of vertex.refersTo)
      keep(to, lease ? vertex.labels.has('containerd.io/gc.flat') : flat);
    if (flat || lease) return;
    for (const [name, value] of vertex.labels) {
      const type = FORTH[name];
      if (type !== undefined) keep({ ...at, type, key: value }, false);
      if (name !== 'containerd.io/gc.cond.snapshot.native') continue;
      const to = { ...at, type: 'snapshots/native', key: value.split('|')[1] ?? '' };
      // Used an hour ago, or in an hour: the first is neither, the second is "less than 30 minutes ago".
      const used = things.find(to)?.labels.get('containerd.io/gc.cond.value-usedat');
      if (used === TIMES[1]) keep(to, false);
    }
  };
  for (const each of touched) keep(each, false);
  for (const { node: each, vertex } of things.all.values()) {
    const { labels } = vertex;
    const isRoot =
      each.type === 'containers' ||
      ((each.type === 'leases' || each.type === 'images') && !expired(labels)) ||
      ((each.type === 'content' || each.type === 'snapshots/native') &&
        labels.has('containerd.io/gc.root'));
    if (isRoot) keep(each, false);
  }
  return kept;
}

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

const markerOf = (things: Things): Marker => new Marker(things, BigInt(NOW) * 1_000_000n);

const there = (things: Things, ids: ReadonlySet<string>): string[] =>
  [...things.all.keys()].filter((id) => ids.has(id)).toSorted();
const markedIn = (things: Things, marker: Marker): string[] =>
  Array.from(things.all, ([id, { node: each }]) => (marker.isMarked(each) ? id : ''))
    .filter((id) => id !== '')
    .toSorted();

test('a graph that stands still: what is marked is what is reachable', () => {
  fc.assert(
    fc.property(fc.array(state, { maxLength: 30 }), (made) => {
      const things = new Things();
      for (const each of made) things.put(each);
      const marker = markerOf(things);
      while (!marker.isDone) marker.step();
      expect(markedIn(things, marker)).toEqual(there(things, reachable(things)));
    }),
    { numRuns: 2000 },
  );
});

const change = fc.record({
  steps: fc.integer({ min: 0, max: 12 }),
  what: fc.oneof(
    { weight: 3, arbitrary: fc.record({ put: state }) },
    { weight: 1, arbitrary: fc.record({ remove: node }) },
  ),
});

test('a graph that changes meanwhile: nothing reachable is missed, nothing left alone is kept', () => {
  fc.assert(
    fc.property(
      fc.array(state, { maxLength: 30 }),
      fc.array(change, { maxLength: 20 }),
      (made, changes) => {
        const things = new Things();
        for (const each of made) things.put(each);
        const ever = new Set(reachable(things));
        const touched: Node[] = [];
        const marker = markerOf(things);
        for (const { steps, what } of changes) {
          for (let n = 0; n < steps; n++) marker.step();
          if ('put' in what) {
            things.put(what.put);
            marker.touch(what.put.node);
            touched.push(what.put.node);
          } else {
            things.all.delete(idOf(what.remove));
          }
          for (const id of reachable(things, touched)) ever.add(id);
        }
        while (!marker.isDone) marker.step();
        const marked = new Set(markedIn(things, marker));
        expect(there(things, reachable(things)).filter((id) => !marked.has(id))).toEqual([]);
        // What was touched is kept, and what it referred to at some time: the next run takes it.
        expect([...marked].filter((id) => !ever.has(id))).toEqual([]);
      },
    ),
    { numRuns: 3000 },
  );
});
