import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { blake3 } from '@noble/hashes/blake3.js';
import { expect, test } from 'vitest';
import { loopFileSystem } from '../../../test/support/loop-fs.ts';
import { temporaryFolder } from '../../../test/support/temporary.ts';
import { background } from '../../base/context.ts';
import { createFileJobs } from './file-jobs.ts';

const workerEntry = join(import.meta.dirname, '../../daemon/worker.ts');
const start = () => createFileJobs({ workerEntry });
const { signal } = background;

const modeOf = async (path: string) => ((await stat(path)).mode & 0o7777).toString(8);
const digestOf = (name: string, data: Uint8Array) => createHash(name).update(data).digest('hex');

test('directories get just the mode and owner asked for, whatever the umask, also when they exist', async () => {
  await using folder = await temporaryFolder('directories');
  await using jobs = start();
  const outer = join(folder.path, 'outer');
  const inner = join(outer, 'inner');
  await jobs.makeDirectories([
    { path: outer, mode: 0o777, uid: 7, gid: 8 },
    { path: inner, mode: 0o711 },
  ]);
  expect(await modeOf(outer)).toBe('777');
  expect(await modeOf(inner)).toBe('711');
  expect(await stat(outer)).toMatchObject({ uid: 7, gid: 8 });
  await jobs.makeDirectories([{ path: outer, mode: 0o700 }]);
  expect(await modeOf(outer)).toBe('700');
  expect(await stat(outer)).toMatchObject({ uid: 0, gid: 0 });
});

test('of directories asked for together, one that cannot be made fails alone', async () => {
  await using folder = await temporaryFolder('directories-alone');
  await using jobs = start();
  await writeFile(join(folder.path, 'file'), '');
  const made = await Promise.allSettled(
    ['a', 'file', 'absent/b', 'c'].map((name) =>
      jobs.makeDirectories([{ path: join(folder.path, name), mode: 0o755 }]),
    ),
  );
  expect(made.map((one) => (one.status === 'rejected' ? one.reason.code : 'made'))).toEqual([
    'made',
    'AlreadyExists',
    'NotFound',
    'made',
  ]);
});

test('small trees are sealed together with large ones, each with its own size', async () => {
  await using folder = await temporaryFolder('seals');
  await using jobs = start();
  const paths = [...Array(20).keys()].map((n) => join(folder.path, String(n)));
  for (const [n, path] of paths.entries()) {
    await mkdir(path);
    const files = n === 7 ? 1500 : n;
    for (let file = 0; file < files; file++) await writeFile(join(path, String(file)), 'x');
  }
  const sealed = await Promise.allSettled([
    ...paths.map((path) => jobs.sealTree({ path }, folder.path, true, signal)),
    jobs.sealTree({ path: join(folder.path, 'absent') }, folder.path, true, signal),
    jobs.sealTree({ path: paths[3] ?? '' }, folder.path, false, signal),
    jobs.syncFileSystem(folder.path),
  ]);
  const answers = sealed.map((one) =>
    one.status === 'rejected' ? one.reason.code : one.value?.inodes,
  );
  const expected = paths.map((_path, n) => (n === 7 ? undefined : n + 1));
  expect(answers).toEqual([...expected, 'NotFound', 4, undefined]);
});

test('digests run along over appends, resumes, later algorithms and truncation', async () => {
  await using folder = await temporaryFolder('ingest');
  await using jobs = start();
  const path = join(folder.path, 'ingest');
  const all = Buffer.concat([...Array(70).keys()].map((n) => Buffer.alloc(2 ** 20, n + 1)));
  {
    const { file, size, digests } = await jobs.openHashedFile(path, ['sha256']);
    expect(size).toBe(0);
    expect(digests).toEqual({ sha256: digestOf('sha256', Buffer.alloc(0)) });
    // Small and large pieces, with memory of their own and as parts of a larger piece.
    await file.append(all.subarray(0, 10));
    await file.append(Buffer.from(all.subarray(10, 200_000)));
    expect(await file.append(new Uint8Array(all.subarray(200_000, 2 ** 20)))).toEqual({
      sha256: digestOf('sha256', all.subarray(0, 2 ** 20)),
    });
    await file.append(new Uint8Array(all.subarray(2 ** 20, 69 * 2 ** 20)));
    await file.sync();
    await file[Symbol.asyncDispose]();
  }
  const resumed = await jobs.openHashedFile(path, ['sha512']);
  await using file = resumed.file;
  expect(resumed.size).toBe(69 * 2 ** 20);
  expect(resumed.digests).toEqual({ sha512: digestOf('sha512', all.subarray(0, 69 * 2 ** 20)) });
  await file.addAlgorithm('sha384');
  expect(await file.addAlgorithm('sha384')).toHaveProperty('sha384');
  expect(await file.append(all.subarray(69 * 2 ** 20))).toEqual({
    sha384: digestOf('sha384', all),
    sha512: digestOf('sha512', all),
  });
  expect((await readFile(path)).equals(all)).toBe(true);
  await file.truncate();
  await file.addAlgorithm('blake3');
  expect(await file.append(Buffer.from('abc'))).toMatchObject({
    blake3: Buffer.from(blake3(Buffer.from('abc'))).toString('hex'),
    sha384: digestOf('sha384', Buffer.from('abc')),
  });
  expect(await readFile(path, 'utf8')).toBe('abc');
});

test('a full disk refuses an append and keeps what was acknowledged', async () => {
  await using disk = await loopFileSystem('ext4', 16);
  await using jobs = start();
  const path = join(disk.path, 'ingest');
  const mega = Buffer.alloc(2 ** 20, 5);
  const { file } = await jobs.openHashedFile(path, ['sha256']);
  let held = 0;
  const fill = async () => {
    for (;;) {
      await file.append(Buffer.from(mega));
      held += mega.length;
    }
  };
  await expect(fill()).rejects.toMatchObject({
    code: 'ResourceExhausted',
    message: expect.stringContaining('no space left'),
  });
  await file[Symbol.asyncDispose]();
  expect(held).toBeGreaterThan(0);
  const resumed = await jobs.openHashedFile(path, ['sha256']);
  expect(resumed.size).toBe(held);
  expect(resumed.digests.sha256).toBe(digestOf('sha256', Buffer.alloc(held, 5)));
  await resumed.file[Symbol.asyncDispose]();
});

test('blobs are placed whole and unwritable, from memory and from files, many at once', async () => {
  await using folder = await temporaryFolder('place');
  await using jobs = start();
  const blobs = join(folder.path, 'blobs');
  await mkdir(blobs);
  await writeFile(join(folder.path, 'ingest'), 'from a file');
  const place = (source: Uint8Array | { path: string }, name: string) =>
    jobs.placeBlob(
      {
        source,
        target: join(blobs, name),
        temporary: join(folder.path, `t-${name}`),
      },
      { sync: true },
    );
  const contents = [...Array(40).keys()].map((n) => Buffer.alloc(n * 100, n));
  await Promise.all([
    ...contents.map((data, n) => place(data, String(n))),
    place({ path: join(folder.path, 'ingest') }, 'file'),
  ]);
  for (const [n, data] of contents.entries()) {
    expect((await readFile(join(blobs, String(n)))).equals(data)).toBe(true);
  }
  expect(await readFile(join(blobs, 'file'), 'utf8')).toBe('from a file');
  expect(await modeOf(join(blobs, 'file'))).toBe('444');
  expect(await modeOf(join(blobs, '0'))).toBe('444');
  // The ingest goes when its blob counts, which is not ours to say.
  expect(await readdir(folder.path)).toEqual(['blobs', 'ingest']);
});

test('a blob too large for the disk fails alone and leaves nothing', async () => {
  await using disk = await loopFileSystem('ext4', 16);
  await using jobs = start();
  const place = (size: number, name: string) =>
    jobs.placeBlob(
      {
        source: new Uint8Array(size),
        target: join(disk.path, name),
        temporary: join(disk.path, `temporary-${name}`),
      },
      { sync: true },
    );
  const placed = await Promise.allSettled([
    place(4096, 'before'),
    place(20 * 2 ** 20, 'large'),
    place(4096, 'after'),
    place(4096, 'last'),
  ]);
  expect(placed.map((one) => (one.status === 'rejected' ? one.reason.code : 'placed'))).toEqual([
    'placed',
    'ResourceExhausted',
    'placed',
    'placed',
  ]);
  expect((await readdir(disk.path)).sort()).toEqual(['after', 'before', 'last', 'lost+found']);
});

test('a copy that is given up ends soon, with nobody at work in the copy any more', async () => {
  await using folder = await temporaryFolder('cancel');
  await using jobs = start();
  const [from, to] = [join(folder.path, 'from'), join(folder.path, 'to')];
  await mkdir(from);
  await mkdir(to);
  for (let n = 0; n < 3000; n++) await writeFile(join(from, String(n)), 'x'.repeat(5000));
  const giveUp = new AbortController();
  const copy = jobs.copyTree(from, to, giveUp.signal);
  while ((await readdir(to)).length < 10) await new Promise((resolve) => setImmediate(resolve));
  giveUp.abort();
  await expect(copy).rejects.toMatchObject({ code: 'Canceled' });
  const left = (await readdir(to)).length;
  expect(left).toBeLessThan(3001);
  await jobs.removeTrees([to], signal);
  expect(await readdir(folder.path)).toEqual(['from']);
});

test('while one disk hangs every kind of job goes on elsewhere, and all end when it is back', async () => {
  await using dead = await loopFileSystem('ext4', 64);
  await using good = await temporaryFolder('good-disk');
  await using jobs = start();
  const everyKind = (root: string) => {
    const path = (name: string) => join(root, name);
    return [
      jobs.makeDirectories([{ path: path('made'), mode: 0o755 }]),
      jobs.copyTree(path('tree'), path('copy'), signal),
      jobs.copyTree(path('tree'), path('copy2'), signal),
      jobs.copyTree(path('tree'), path('copy3'), signal),
      jobs.removeTrees([path('old')], signal),
      jobs.sealTree({ path: path('tree') }, root, true, signal),
      jobs.measureTree(path('tree'), signal),
    ];
  };
  for (const root of [dead.path, good.path]) {
    for (const name of ['tree/d', 'copy', 'copy2', 'copy3', 'old/d']) {
      await mkdir(join(root, name), { recursive: true });
    }
    await writeFile(join(root, 'tree/file'), 'bytes');
  }
  execFileSync('fsfreeze', ['--freeze', dead.path]);
  let stuck: Promise<unknown>[];
  try {
    stuck = everyKind(dead.path);
    await Promise.all(everyKind(good.path));
  } finally {
    execFileSync('fsfreeze', ['--unfreeze', dead.path]);
  }
  await Promise.all(stuck);
  for (const root of [dead.path, good.path]) {
    expect(await readFile(join(root, 'copy3/file'), 'utf8')).toBe('bytes');
    expect((await readdir(root)).filter((name) => name === 'old')).toEqual([]);
  }
});
