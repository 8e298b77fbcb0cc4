// Who keeps what is what a collection would take along, were one root gone: judged by the marker.
import { expect, test } from 'vitest';
import { Random, testSeed } from '../../test/support/random.ts';
import type { Node, Vertex } from './collectible.ts';
import { Keepers } from './keepers.ts';
import { idOf, Marker, type Graph } from './mark.ts';
import { Turns } from './slices.ts';

const GRAPHS = 300;
const TYPES = ['content', 'images', 'leases', 'snapshots/s', 'containers'] as const;

interface Made {
  readonly nodes: readonly Node[];
  readonly vertices: ReadonlyMap<string, Vertex>;
  readonly roots: readonly Node[];
}

function make(random: Random): Made {
  const nodes = Array.from({ length: 2 + random.below(14) }, (_, at): Node => {
    const type = random.pick(TYPES) ?? 'content';
    return { type, namespace: 'here', key: `k${at}` };
  });
  const any = (): Node => random.pick(nodes) ?? { type: 'content', namespace: 'here', key: '' };
  const roots: Node[] = [];
  const vertices = new Map<string, Vertex>();
  for (const node of nodes) {
    const labels = new Map<string, string>();
    if (node.type === 'leases' && random.chance(0.5)) labels.set('containerd.io/gc.flat', 'x');
    for (let n = random.below(3); n > 0; n--) {
      const kind = random.pick(['ref', 'ref', 'bref']) ?? 'ref';
      const [type, word] = random.pick([
        ['content', 'content'],
        ['images', 'image'],
        ['snapshots/s', 'snapshot.s'],
      ] as const) ?? ['content', 'content'];
      const to = any();
      if (to.type === type) labels.set(`containerd.io/gc.${kind}.${word}/${n}`, to.key);
    }
    const isRoot = node.type === 'leases' || random.chance(0.3);
    if (isRoot) roots.push(node);
    // Nothing refers to a lease, and a container only by its labels.
    const refersTo = Array.from({ length: random.below(3) }, any).filter(
      ({ type }) => type !== 'leases' && type !== 'containers',
    );
    const root = isRoot ? 'always' : 'with gc.root';
    vertices.set(idOf(node), { root, createdAt: 0n, labels, refersTo });
  }
  return { nodes, vertices, roots };
}

/** @param but a node that is not there */
const graphOf = ({ nodes, vertices }: Made, but?: Node): Graph => ({
  nodes: () => nodes.filter((node) => node !== but),
  find: (node) => (but && idOf(node) === idOf(but) ? undefined : vertices.get(idOf(node))),
});

/** @param only the one root that there is */
function onlyRoot(made: Made, only: Node): Graph {
  const graph = graphOf(made);
  return {
    nodes: () => graph.nodes(),
    find: (node) => {
      const vertex = graph.find(node);
      const isOther = vertex !== undefined && idOf(node) !== idOf(only);
      return isOther ? { ...vertex, root: 'with gc.root' } : vertex;
    },
  };
}

function marked(graph: Graph, nodes: readonly Node[]): readonly Node[] {
  const marker = new Marker(graph, 0n);
  while (!marker.isDone) marker.step();
  return nodes.filter((node) => marker.isMarked(node) && graph.find(node) !== undefined);
}

const ids = (nodes: Iterable<Node>): readonly string[] => Array.from(nodes, idOf).toSorted();

test('a root alone keeps what goes with it; all that lead to a node are those that mark it alone', async () => {
  const seed = testSeed();
  process.stdout.write(`keepers: BALLAST_SEED=${seed}\n`);
  const random = new Random(seed);
  let [keptAlone, keptBySeveral] = [0, 0];
  for (let count = 0; count < GRAPHS; count++) {
    const made = make(random);
    const graph = graphOf(made);
    const keepers = await Keepers.of(graph, 0n, new Turns(new AbortController().signal));
    const keeperOfEach = await keepers.keeperOfEach();
    const kept = marked(graph, made.nodes);
    expect(ids(made.nodes.filter((node) => keeperOfEach.of(node) !== undefined))).toEqual(
      ids(kept),
    );
    for (const root of made.roots) {
      const left = new Set(ids(marked(graphOf(made, root), made.nodes)));
      const gone = kept.filter((node) => !left.has(idOf(node)));
      const own = made.nodes.filter((node) => {
        const keeper = keeperOfEach.of(node);
        if (keeper === 'several') keptBySeveral++;
        return keeper !== undefined && keeper !== 'several' && idOf(keeper) === idOf(root);
      });
      // What refers to a root that is gone still keeps those whose labels say that the root refers to them.
      if (own.includes(root)) expect(ids(own)).toEqual(ids(gone));
      keptAlone += own.length;
      const alone = ids(marked(onlyRoot(made, root), made.nodes));
      const below = await keepers.below(root);
      expect(ids(below.filter((node) => made.vertices.has(idOf(node))))).toEqual(alone);
      for (const node of made.nodes) {
        const { roots } = await keepers.above(node);
        expect(ids(roots).includes(idOf(root)), idOf(node)).toBe(alone.includes(idOf(node)));
      }
    }
  }
  expect(keptAlone).toBeGreaterThan(GRAPHS);
  expect(keptBySeveral).toBeGreaterThan(GRAPHS);
});
