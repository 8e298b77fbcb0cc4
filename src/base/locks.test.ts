import { expect, test } from 'vitest';
import { KeyedLocks } from './locks.ts';

test('work on one key runs in the order it was asked for; other keys do not wait', async () => {
  const locks = new KeyedLocks();
  const gate = Promise.withResolvers<void>();
  const order: string[] = [];
  const first = locks.with(['a'], async () => {
    await gate.promise;
    order.push('first');
  });
  const second = locks.with(['b', 'a'], async () => void order.push('second'));
  await locks.with(['c'], async () => void order.push('other'));
  gate.resolve();
  await Promise.all([first, second]);
  expect(order).toEqual(['other', 'first', 'second']);
});

test('opposite key orders do not deadlock, and a failure frees the keys', async () => {
  const locks = new KeyedLocks();
  const results = await Promise.allSettled([
    locks.with(['a', 'b'], () => Promise.reject(new Error('no'))),
    locks.with(['b', 'a'], async () => 'yes'),
    locks.with(['a', 'a'], async () => 'again'),
  ]);
  expect(results.map((result) => result.status)).toEqual(['rejected', 'fulfilled', 'fulfilled']);
});
