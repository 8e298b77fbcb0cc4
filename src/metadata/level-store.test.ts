import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { LevelStore, metadataPaths } from './level-store.ts';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'ballast-level-'));
});
afterEach(() => rm(root, { recursive: true, force: true }));

const open = (used: boolean): Promise<LevelStore> =>
  LevelStore.open({
    ...metadataPaths(root),
    used,
    onFatal: (error) => {
      throw error;
    },
  });

async function all(store: LevelStore): Promise<Record<string, unknown>> {
  return Object.fromEntries(await Array.fromAsync(store.scan('')));
}

test('what an update wrote is there after a restart', async () => {
  {
    await using store = await open(false);
    await Promise.all(
      Array.from({ length: 100 }, (_, n) => store.update((tx) => tx.put(`k/${n}`, { n }))),
    );
    await store.update((tx) => tx.delete('k/7'));
  }
  await using store = await open(true);
  const records = await all(store);
  expect(records['k/99']).toEqual({ n: 99 });
  expect(Object.hasOwn(records, 'k/7')).toBe(false);
});

test('a change that throws leaves neither records nor memory altered', async () => {
  await using store = await open(false);
  const memory = new Set<string>();
  await expect(
    store.update((tx) => {
      memory.add('x');
      tx.onRollback(() => memory.delete('x'));
      tx.put('x', 1);
      throw new Error('second thoughts');
    }),
  ).rejects.toThrow('second thoughts');
  expect(memory.size).toBe(0);
  expect(Object.keys(await all(store))).toEqual(['!summary']);
});

test('a second opener is told that the store is in use', async () => {
  await using store = await open(false);
  await store.settled();
  await expect(open(true)).rejects.toMatchObject({ code: 'FailedPrecondition' });
});

test('a damaged log is noticed, although level itself drops the records silently', async () => {
  {
    await using store = await open(false);
    for (let n = 0; n < 200; n++) await store.update((tx) => tx.put(`k/${n}`, 'v'.repeat(300)));
  }
  const folder = metadataPaths(root).path;
  const log = (await readdir(folder)).find((name) => name.endsWith('.log'));
  expect(log).toBeDefined();
  const path = join(folder, log ?? '');
  const bytes = await readFile(path);
  bytes.fill(0xff, 100, 5000);
  await writeFile(path, bytes);
  await expect(open(true)).rejects.toMatchObject({ code: 'DataLoss' });
});

test('a store that vanished from a used root is not silently begun anew', async () => {
  {
    await using store = await open(false);
    await store.update((tx) => tx.put('k', 1));
  }
  await rm(metadataPaths(root).path, { recursive: true });
  await expect(open(true)).rejects.toMatchObject({ code: 'DataLoss' });
});
