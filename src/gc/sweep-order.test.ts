import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Node } from './collectible.ts';
import { SweepOrder } from './sweep-order.ts';

const SIZE = 12;
const nodeOf = (index: number): Node => ({
  type: index % 2 === 0 ? 'content' : 'snapshots/native',
  namespace: 'here',
  key: String(index),
});
const index = fc.nat(SIZE - 1);
const edges = fc.array(fc.tuple(index, index), { maxLength: 40 });
const all = Array.from({ length: SIZE }, (_, at) => at);

/** @param given each from a number to another; @param listed in the order in which nodes come */
function orderOf(
  given: readonly (readonly [number, number])[],
  listed: readonly number[],
  marked: ReadonlySet<number>,
): readonly number[] {
  const order = new SweepOrder({
    nodes: () => listed.map(nodeOf),
    isMarked: ({ key }) => marked.has(Number(key)),
    referencesOf: ({ key }) =>
      listed.includes(Number(key))
        ? given.filter(([from]) => from === Number(key)).map(([, to]) => nodeOf(to))
        : undefined,
  });
  while (order.step());
  return order.result.map(({ key }) => Number(key));
}

const listing = fc.shuffledSubarray(all);

test('each unreachable node that is there goes once, whatever refers to what', () => {
  fc.assert(
    fc.property(edges, listing, fc.uniqueArray(index), (given, listed, marked) => {
      const order = orderOf(given, listed, new Set(marked));
      const expected = listed.filter((at) => !marked.includes(at));
      expect(order.toSorted((a, b) => a - b)).toEqual(expected.toSorted((a, b) => a - b));
    }),
  );
});

test('without circles each goes before what it refers to', () => {
  fc.assert(
    fc.property(edges, listing, (given, listed) => {
      const forth = given.filter(([from, to]) => from < to);
      const order = orderOf(forth, listed, new Set());
      for (const [from, to] of forth) {
        if (!listed.includes(from) || !listed.includes(to)) continue;
        expect(order.indexOf(from)).toBeLessThan(order.indexOf(to));
      }
    }),
  );
});
