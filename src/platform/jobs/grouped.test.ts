import { expect, test } from 'vitest';
import { Grouped, GroupedByName, type Outcome } from './grouped.ts';

test('calls that come while a group is at work share the next one', async () => {
  const groups: (readonly number[])[] = [];
  const gate = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  const grouped = new Grouped<number, number>(100, async (group) => {
    groups.push(group);
    started.resolve();
    await gate.promise;
    return group.map((n) => ({ value: n * n }));
  });
  const together = [1, 2].map((n) => grouped.call(n));
  await started.promise;
  const later = [3, 4, 5].map((n) => grouped.call(n));
  gate.resolve();
  expect(await Promise.all([...together, ...later])).toEqual([1, 4, 9, 16, 25]);
  expect(groups).toEqual([
    [1, 2],
    [3, 4, 5],
  ]);
});

test('a group never grows beyond its limit', async () => {
  const sizes: number[] = [];
  const grouped = new Grouped<number, number>(4, async (group) => {
    sizes.push(group.length);
    return group.map((value) => ({ value }));
  });
  await Promise.all([...Array(10).keys()].map((n) => grouped.call(n)));
  expect(sizes).toEqual([4, 4, 2]);
});

test('one call can fail alone; when the group fails, all of it do, and the next works', async () => {
  let fail = false;
  const grouped = new Grouped<number, number>(10, async (group) => {
    if (fail) throw new Error('the disk');
    return group.map((n): Outcome<number> =>
      n === 2 ? { error: new Error('two') } : { value: n },
    );
  });
  const alone = await Promise.allSettled([1, 2, 3].map((n) => grouped.call(n)));
  expect(alone.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  fail = true;
  const all = await Promise.allSettled([1, 3].map((n) => grouped.call(n)));
  expect(all.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  fail = false;
  expect(await grouped.call(5)).toBe(5);
});

test('groups of other names do not wait for a stuck one', async () => {
  const stuck = Promise.withResolvers<void>();
  const grouped = new GroupedByName<number, number>(10, async (name, group) => {
    if (name === 'dead disk') await stuck.promise;
    return group.map((value) => ({ value }));
  });
  const waiting = grouped.call('dead disk', 1);
  expect(await grouped.call('good disk', 2)).toBe(2);
  stuck.resolve();
  expect(await waiting).toBe(1);
});
