// Chains on random graphs: there is one exactly when a marker reaches the node, from each kind of root that does
// so alone, and none is longer than it has to be.
import fc from 'fast-check';
import { setImmediate } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import {
  distances,
  node,
  NOW,
  reachable,
  roots,
  state,
  Things,
} from '../../test/support/gc-graph.ts';
import type { Node } from './collectible.ts';
import type { LiveGraph } from './collector.ts';
import type { Chain } from './gc.ts';
import { idOf, type Marker } from './mark.ts';
import { chainsTo } from './why.ts';

const now = (): bigint => BigInt(NOW) * 1_000_000n;

/** A graph that changes between a search's steps, each time that it is asked for something. */
class Live extends Things implements LiveGraph {
  readonly markers = new Set<Marker>();
  readonly holds: Node[] = [];

  held(): Iterable<Node> {
    return this.holds;
  }
  follow(marker: Marker): Disposable {
    this.markers.add(marker);
    return { [Symbol.dispose]: () => void this.markers.delete(marker) };
  }
  touch(at: Node): void {
    for (const marker of this.markers) marker.touch(at);
  }
}

const liveOf = (made: readonly (typeof state extends fc.Arbitrary<infer T> ? T : never)[]) => {
  const live = new Live();
  for (const each of made) live.put(each);
  return live;
};

/** How far from the roots of one kind a node is; undefined: they do not reach it. */
function distance(live: Live, to: Node, kind: string): number | undefined {
  const from =
    kind === 'requests'
      ? live.holds
      : roots(live).filter(({ type }) => type.split('/')[0] === kind);
  return distances(live, from).get(idOf(to));
}

const KINDS = ['content', 'images', 'snapshots', 'leases', 'containers', 'ingests', 'requests'];

test('a graph that stands still: a shortest chain from each kind of root that keeps a node', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(state, { maxLength: 30 }),
      fc.array(node, { maxLength: 2 }),
      node,
      async (made, holds, to) => {
        const live = liveOf(made);
        live.holds.push(...holds);
        const chains = await chainsTo(to, live, { now });
        expect(chains.length > 0).toBe(reachable(live, holds).has(idOf(to)));
        for (const { links } of chains) {
          expect(links.at(-1)?.node).toEqual(to);
          expect(links.map(({ by }) => by === '')).toEqual(links.map((_, at) => at === 0));
        }
        const lengths = chains.map(({ links }) => links.length - 1);
        expect(lengths).toEqual(lengths.toSorted((a, b) => a - b));
        const kinds = new Map(chains.map(({ kind, links }: Chain) => [kind, links.length - 1]));
        for (const kind of KINDS) {
          expect(kinds.get(kind), kind).toBe(distance(live, to, kind));
        }
      },
    ),
    { numRuns: 2000 },
  );
});

const change = fc.record({
  what: fc.oneof(
    { weight: 3, arbitrary: fc.record({ put: state }) },
    { weight: 1, arbitrary: fc.record({ remove: node }) },
  ),
});

test('a graph that changes meanwhile: what is told was so at some moment, and nothing is told only now', async () => {
  let time = 0;
  // Slices of a few steps each.
  const clock = vi.spyOn(performance, 'now').mockImplementation(() => (time += 1));
  onTestFinished(() => clock.mockRestore());
  let changed = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(state, { minLength: 30, maxLength: 40 }),
      fc.array(change, { minLength: 10, maxLength: 20 }),
      node,
      async (made, changes, to) => {
        const live = liveOf(made);
        let isOver = false;
        let wasReachable = reachable(live).has(idOf(to));
        const changing = (async () => {
          for (const { what } of changes) {
            await setImmediate();
            if (isOver) return;
            changed++;
            if ('put' in what) live.put(what.put);
            else live.all.delete(idOf(what.remove));
            if ('put' in what) live.touch(what.put.node);
            wasReachable ||= reachable(live).has(idOf(to));
          }
        })();
        const chains = await chainsTo(to, live, { now });
        isOver = true;
        if (chains.length > 0) expect(wasReachable).toBe(true);
        else expect(reachable(live).has(idOf(to))).toBe(false);
        await changing;
      },
    ),
    { numRuns: 2000 },
  );
  expect(changed).toBeGreaterThan(1000);
});

test('the nearest root of a kind, by the way that has the fewest references', async () => {
  const live = new Live();
  const at = (type: string, key: string): Node => ({ type, namespace: 'one', key });
  const put = (
    each: Node,
    labels: Readonly<Record<string, string>>,
    ...to: readonly Node[]
  ): void => live.put({ node: each, labels: Object.entries(labels), to: to as never });
  put(at('images', 'far'), {}, at('content', 'index'));
  put(at('content', 'index'), { 'containerd.io/gc.ref.content.l.0': 'manifest' });
  put(at('content', 'manifest'), {
    'containerd.io/gc.ref.content': 'layer',
    'containerd.io/gc.ref.content.l.0': 'other',
  });
  put(at('content', 'other'), { 'containerd.io/gc.ref.content': 'layer' });
  put(at('content', 'layer'), { 'containerd.io/gc.ref.snapshot.native': 'top' });
  put(at('images', 'near'), {}, at('content', 'manifest'));
  put(at('images', 'last'), {}, at('content', 'index'));
  put(at('snapshots/native', 'top'), {}, at('snapshots/native', 'base'));
  put(at('snapshots/native', 'base'), { 'containerd.io/gc.bref.container': 'c' });
  put(at('leases', 'flat'), { 'containerd.io/gc.flat': '' }, at('content', 'layer'));
  put(at('containers', 'c'), {}, at('snapshots/native', 'none'));
  const shown = async (to: Node): Promise<readonly string[]> =>
    (await chainsTo(to, live, { now })).map(({ links }) =>
      links.map(({ node: each, by }) => `${by} ${each.key}`.trim()).join(', '),
    );
  expect(await shown(at('content', 'layer'))).toEqual([
    'flat, lease layer',
    'near, target manifest, containerd.io/gc.ref.content layer',
  ]);
  expect(await shown(at('snapshots/native', 'base'))).toEqual([
    'c, containerd.io/gc.bref.container base',
    'near, target manifest, containerd.io/gc.ref.content layer, containerd.io/gc.ref.snapshot.native top, parent base',
  ]);
  expect(await shown(at('content', 'nothing'))).toEqual([]);
});
