import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { Level } from 'level';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { JournaledStore, metadataPaths } from './journaled-store.ts';
import type { FlushedBytes } from './metadata.ts';

let folder: string;
let root: string;
/** What a daemon that was killed leaves: a copy of the root, taken while its store is open. */
let crashed: string;
/** Stands for the content store: what was asked of it. */
let restored: Map<string, string>;
let flushes: number;
const bytes: FlushedBytes = {
  flush: async () => void flushes++,
  restore: async (kept) => {
    restored = new Map(Array.from(kept, ([key, each]) => [key, Buffer.from(each).toString()]));
  },
};
beforeEach(async () => {
  restored = new Map();
  flushes = 0;
  folder = await mkdtemp(join(tmpdir(), 'ballast-metadata-'));
  root = join(folder, 'root');
  crashed = join(folder, 'crashed');
  await mkdir(root);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const open = (used: boolean, at = root): Promise<JournaledStore> =>
  JournaledStore.open({
    ...metadataPaths(at),
    used,
    bytes,
    onFatal: (error) => {
      throw error;
    },
  });

/** Level's thread may be at its files meanwhile: only a copy during which nothing changed is a moment's. */
async function crash(): Promise<void> {
  for (;;) {
    const before = await filesOf(root);
    await cp(root, crashed, { recursive: true }).catch(() => undefined);
    if ((await filesOf(root)) === before && (await namesOf(crashed)) === (await namesOf(root))) {
      return;
    }
    await rm(crashed, { recursive: true, force: true });
  }
}

const namesOf = async (path: string): Promise<string> =>
  (await readdir(path, { recursive: true })).toSorted().join('\n');

async function filesOf(path: string): Promise<string> {
  const names = (await readdir(path, { recursive: true })).toSorted();
  const lines = names.map(async (name) => {
    const found = await stat(join(path, name), { bigint: true }).catch(() => undefined);
    return `${name} ${found?.size} ${found?.mtimeNs}`;
  });
  return (await Promise.all(lines)).join('\n');
}

async function all(store: JournaledStore): Promise<Record<string, unknown>> {
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
  const database = metadataPaths(root).path;
  const log = (await readdir(database)).find((name) => name.endsWith('.log'));
  expect(log).toBeDefined();
  const path = join(database, log ?? '');
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

/** Of a length that differs, so that records of the journal begin anywhere. */
const valueOf = (n: number): string => 'v'.repeat(n % 397);

test('after a crash everything acknowledged is there, wherever it was on its way to the database', async () => {
  await using store = await open(false);
  const counts = [1, 499, 2, 1500, 700, 3];
  let written = 0;
  for (const count of counts) {
    const numbers = Array.from({ length: count }, (_, n) => written + n);
    await Promise.all(numbers.map((n) => store.update((tx) => tx.put(`k/${n}`, valueOf(n)))));
    for (const n of numbers.filter((each) => each % 5 === 0)) {
      await store.update((tx) => tx.delete(`k/${n}`));
    }
    written += count;
    await crash();
    {
      await using reopened = await open(true, crashed);
      const records = await all(reopened);
      for (let n = 0; n < written; n++) {
        expect(records[`k/${n}`]).toBe(n % 5 === 0 ? undefined : valueOf(n));
      }
    }
    await rm(crashed, { recursive: true });
  }
});

test('records of megabytes fill the journal over and over', async () => {
  const mebibyte = 'm'.repeat(1 << 20);
  {
    await using store = await open(false);
    await Promise.all(
      Array.from({ length: 12 }, (_, n) => store.update((tx) => tx.put(`k/${n}`, mebibyte + n))),
    );
    await expect(store.update((tx) => tx.put('k/x', mebibyte + mebibyte))).rejects.toMatchObject({
      code: 'ResourceExhausted',
    });
    await crash();
  }
  for (const at of [root, crashed]) {
    await using store = await open(true, at);
    const records = await all(store);
    for (let n = 0; n < 12; n++) expect(records[`k/${n}`]).toBe(mebibyte + n);
    expect(records).not.toHaveProperty('k/x');
  }
});

/** Twenty changes, one after the other, then a crash; returns where each one's record is. */
async function crashWithRecords(): Promise<{ journal: string; bytes: Buffer; starts: number[] }> {
  await using store = await open(false);
  for (let n = 0; n < 20; n++) await store.update((tx) => tx.put(`k/${n}`, n));
  await crash();
  const { journal } = metadataPaths(crashed);
  const bytes = await readFile(journal);
  const starts = Array.from({ length: 20 }, (_, n) => bytes.indexOf(`k/${n}`));
  return { journal, bytes, starts };
}

test('a damaged record of the journal with others behind it is noticed', async () => {
  const { journal, bytes, starts } = await crashWithRecords();
  bytes.fill(0, starts[7], (starts[7] ?? 0) + 1);
  await writeFile(journal, bytes);
  await expect(open(true, crashed)).rejects.toMatchObject({ code: 'DataLoss' });
});

test('a record that the crash tore was not acknowledged, and is not there', async () => {
  const { journal, bytes, starts } = await crashWithRecords();
  bytes.fill(0, starts[19]);
  await writeFile(journal, bytes);
  {
    await using store = await open(true, crashed);
    expect(Object.keys(await all(store)).length).toBe(20);
    await store.update((tx) => tx.put('k/19', 'again'));
  }
  await using store = await open(true, crashed);
  expect(await all(store)).toMatchObject({ 'k/18': 18, 'k/19': 'again' });
});

test('a journal cut short, emptied or zeroed after a crash is noticed', async () => {
  const { journal, bytes } = await crashWithRecords();
  for (const damaged of [
    bytes.subarray(0, bytes.length / 2),
    Buffer.alloc(0),
    Buffer.alloc(bytes.length),
  ]) {
    await writeFile(journal, damaged);
    await expect(open(true, crashed)).rejects.toMatchObject({ code: 'DataLoss' });
  }
});

test('bytes that a client made to look like a record are none', async () => {
  const other = join(folder, 'other');
  await mkdir(other);
  {
    await using theirs = await open(false, other);
    await theirs.update((tx) => tx.put('stolen', 'of another root'));
    await theirs.update((tx) => tx.put('forged', 'with the number that comes next'));
  }
  const { journal } = metadataPaths(other);
  const forged = (await readFile(journal)).subarray(0, 2000);
  await using store = await open(false);
  await store.update((tx) => {
    tx.put('blob', 'record');
    tx.keep('blob', forged);
  });
  await crash();
  await using reopened = await open(true, crashed);
  expect(Object.keys(await all(reopened)).toSorted()).toEqual(['!summary', 'blob']);
});

test('a journal that vanished after a crash is noticed', async () => {
  {
    await using store = await open(false);
    await store.update((tx) => tx.put('k', 1));
  }
  await using store = await open(true);
  await store.update((tx) => tx.put('k', 2));
  await crash();
  await rm(metadataPaths(crashed).journal);
  await expect(open(true, crashed)).rejects.toMatchObject({ code: 'DataLoss' });
});

test('a record of format 1, without a journal, is read and goes on with one', async () => {
  {
    const level = new Level<string, string>(metadataPaths(root).path);
    const [key, value] = ['k', '"old"'];
    const summary = { count: 1, sum: crc32(value, crc32(key)) };
    await level.batch([
      { type: 'put', key, value },
      { type: 'put', key: '!summary', value: JSON.stringify(summary) },
    ]);
    await level.close();
  }
  {
    await using store = await open(true);
    await store.update((tx) => tx.put('new', 'too'));
  }
  await using store = await open(true);
  expect(await all(store)).toMatchObject({ k: 'old', new: 'too' });
});

test('kept bytes come back after a crash, but for what was deleted, until they were flushed', async () => {
  await using store = await open(false);
  const put = (key: string): Promise<void> =>
    store.update((tx) => {
      tx.put(key, 'record');
      tx.keep(key, Buffer.from(`\xffbj1 bytes of ${key}`, 'latin1'));
    });
  await Promise.all([put('a'), put('b'), put('c')]);
  await store.update((tx) => tx.delete('b'));
  await crash();
  {
    await using reopened = await open(true, crashed);
    expect([...restored.keys()]).toEqual(['a', 'c']);
    expect(Object.keys(await all(reopened))).not.toContain('b');
  }
  expect(flushes).toBe(0);
  await rm(crashed, { recursive: true });

  for (let n = 0; n < 1200; n++) await store.update((tx) => tx.put('other', n));
  const keys = Array.from({ length: 1200 }, (_, n) => `k/${n}`);
  for (const key of keys) await store.update((tx) => tx.put(key, key));
  expect(flushes).toBe(1);
  await crash();
  restored.clear();
  await using reopened = await open(true, crashed);
  expect(restored.size).toBe(0);
  expect(Object.keys(await all(reopened))).toContain('a');
});
