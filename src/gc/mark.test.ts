// The marker on random graphs that change while it works: what is reachable at the end is marked, and what was
// unreachable all the time, and not touched, is not.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { node, NOW, reachable, state, Things } from '../../test/support/gc-graph.ts';
import type { Node } from './collectible.ts';
import { idOf, Marker } from './mark.ts';

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
