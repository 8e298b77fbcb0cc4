import { expect, test } from 'vitest';
import { Lane } from './lane.ts';

const patient = { parallel: 1, slowMs: 60_000, parallelMax: 4 };

/** A job that ends when it is told to. */
function job() {
  const started = Promise.withResolvers<void>();
  const { promise, resolve } = Promise.withResolvers<void>();
  const run = () => {
    started.resolve();
    return promise;
  };
  return { run, started: started.promise, end: resolve };
}

test('jobs start in the order they came, no more at once than allowed', async () => {
  const lane = new Lane({ ...patient, parallel: 2 });
  const order: number[] = [];
  let atWork = 0;
  let mostAtWork = 0;
  const one = async (n: number) => {
    order.push(n);
    mostAtWork = Math.max(mostAtWork, ++atWork);
    await new Promise((resolve) => setImmediate(resolve));
    atWork--;
  };
  await Promise.all([...Array(9).keys()].map((n) => lane.run('counting', undefined, () => one(n))));
  expect(order).toEqual([...Array(9).keys()]);
  expect(mostAtWork).toBe(2);
});

test('a job that takes long is passed by, but only so many are', async () => {
  const lane = new Lane({ parallel: 1, slowMs: 1, parallelMax: 2 });
  const [stuck, alsoStuck, next] = [job(), job(), job()];
  const all = [stuck, alsoStuck, next].map(({ run }) => lane.run('waiting', undefined, run));
  let third = false;
  void next.started.then(() => (third = true));
  await alsoStuck.started;
  expect(third).toBe(false);
  alsoStuck.end();
  await next.started;
  expect(third).toBe(true);
  stuck.end();
  next.end();
  await Promise.all(all);
});

test('a job that fails makes room as one that succeeds', async () => {
  const lane = new Lane(patient);
  await expect(
    lane.run('failing', undefined, () => Promise.reject(new Error('no'))),
  ).rejects.toThrow('no');
  await expect(lane.run('next', undefined, () => Promise.resolve(7))).resolves.toBe(7);
});

test('a caller that gives up while waiting is told at once, and its job never starts', async () => {
  const lane = new Lane(patient);
  const first = job();
  const running = lane.run('first', undefined, first.run);
  const giveUp = new AbortController();
  let started = false;
  const waiting = lane.run('copying "/a"', giveUp.signal, async () => {
    started = true;
  });
  giveUp.abort();
  await expect(waiting).rejects.toMatchObject({
    code: 'Canceled',
    message: expect.stringContaining('copying "/a"'),
  });
  first.end();
  await running;
  await expect(lane.run('late', giveUp.signal, async () => 1)).rejects.toMatchObject({
    code: 'Canceled',
  });
  expect(started).toBe(false);
});
