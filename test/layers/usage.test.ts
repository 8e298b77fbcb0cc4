// Usage of what Apply wrote: neither Commit nor Usage walks for it, and what others write meanwhile is in it in the end.
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { digestOf } from '../../src/base/digest.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import { ThreadedApplier } from '../../src/diff/apply/threaded-applier.ts';
import { TAR_LIMITS } from '../../src/diff/apply/limits.ts';
import { PLAIN_LAYER, type Descriptor } from '../../src/diff/diff.ts';
import { JournaledStore, metadataPaths } from '../../src/metadata/journaled-store.ts';
import type { MetadataStore } from '../../src/metadata/metadata.ts';
import { createFileJobs } from '../../src/platform/jobs/file-jobs.ts';
import { SystemClock } from '../../src/platform/linux/clock.ts';
import { createLinux } from '../../src/platform/linux/linux.ts';
import type { SnapshotDriver } from '../../src/snapshotters/driver.ts';
import { drivers } from '../../src/snapshotters/drivers.ts';
import type { Mount, Usage } from '../../src/snapshotters/snapshotter.ts';
import { TreeSnapshotter } from '../../src/snapshotters/tree-snapshotter.ts';
import { Daemon, DRIVERS, type DriverName } from '../support/daemon.ts';
import { fileSystemFor, loopFileSystem } from '../support/loop-fs.ts';
import { ownDirectory } from '../support/mounts.ts';
import { PATIENCE_MS, within } from '../support/patience.ts';
import { END, rawEntry } from '../support/tar.ts';
import { repository } from '../support/temporary.ts';
import { testUnless } from '../support/unless-missing.ts';

const PARENT_COMES = new Map([['containerd.io/snapshot/parent-chain-id', 'whatever']]);

const layerOf = (...entries: readonly Buffer[]): Buffer => Buffer.concat([...entries, END]);

const files = (count: number): Buffer[] =>
  Array.from({ length: count }, (_, n) => rawEntry({ name: `d${n % 50}/f${n}` }, 'x'.repeat(n)));

function descriptorOf(bytes: Buffer): Descriptor {
  const digest = digestOf('sha256', createHash('sha256').update(bytes).digest('hex'));
  return { mediaType: PLAIN_LAYER, digest, size: bytes.length };
}

/** As du(1) counts, with the directory itself. */
function walked(directory: string): Usage {
  const count = (...options: string[]): number =>
    Number(
      execFileSync('du', ['-s', ...options, directory])
        .toString()
        .split('\t')[0],
    );
  return { inodes: count('--inodes'), size: count('-B1') };
}

async function openMetadata(root: string, changed: () => void): Promise<MetadataStore> {
  const store = await JournaledStore.open({
    ...metadataPaths(root),
    used: false,
    bytes: { flush: async () => undefined, restore: async () => undefined },
    onFatal: (error) => {
      throw error;
    },
  });
  return {
    scan: (prefix) => store.scan(prefix),
    settled: () => store.settled(),
    update: async (change, options) => {
      const outcome = await store.update(change, options);
      changed();
      return outcome;
    },
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

/** A snapshotter and an applier without a daemon, which checks what was counted as soon as it may. */
async function open(driverName: DriverName) {
  await using parts = new AsyncDisposableStack();
  const { path: root } = parts.use(await loopFileSystem(fileSystemFor(driverName), 1024));
  const events = new EventEmitter();
  const jobs = parts.use(createFileJobs({ workerEntry: join(repository, 'src/daemon/worker.ts') }));
  const metadata = parts.use(await openMetadata(root, () => events.emit('changed')));
  const layers = new Map<string, AsyncIterable<Uint8Array>>();
  const applier = parts.use(
    new ThreadedApplier({
      workerEntry: join(repository, 'src/daemon/layer-worker.ts'),
      limits: TAR_LIMITS,
      blobs: {
        sourceOf: async (_ctx, { digest }) => ({
          chunks: layers.get(digest) ?? oneChunk(),
          toVerify: true,
        }),
      },
    }),
  );
  const warn = (fields: unknown, message: string): void => {
    throw new Error(`${message}: ${JSON.stringify(fields)}`);
  };
  const factory = drivers.find(({ name }) => name === driverName.replace('overlayfs', 'overlay'));
  const driver = await factory?.open(
    { root: join(root, 'snapshotter'), durability: 'full', table: {} },
    { linux: createLinux(), jobs, rebaser: applier, warn },
  );
  if (driver === undefined) throw new Error(`no driver ${driverName}`);
  const snapshotter = parts.use(
    await TreeSnapshotter.open(driverName, {
      metadata,
      driver: noticing(driver, () => events.emit('measured')),
      accounts: applier.accounts,
      clock: new SystemClock(),
      warn,
      quietMs: 0,
    }),
  );
  const all = parts.move();
  return {
    snapshotter,
    events,
    prepare: (key: string, parent = '', labels = NO_LABELS) =>
      snapshotter.prepare(background, key, parent, labels),
    commit: (key: string, parent = '') =>
      snapshotter.commit(background, `${key}, committed`, key, NO_LABELS, parent),
    usage: (key: string) => snapshotter.usage(background, `${key}, committed`),
    apply: (mounts: readonly Mount[], bytes: Buffer, chunks = oneChunk(bytes)) => {
      const layer = descriptorOf(bytes);
      layers.set(layer.digest, chunks);
      return applier.apply(background, layer, mounts);
    },
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

async function* oneChunk(bytes?: Buffer): AsyncIterable<Uint8Array> {
  // A chunk may be handed over with its memory.
  if (bytes !== undefined) yield Buffer.from(bytes);
}

/** The same driver; `measured` is called before it walks for the usage of a snapshot. */
function noticing(driver: SnapshotDriver, measured: () => void): SnapshotDriver {
  return new Proxy(driver, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      if (name === 'usage') measured();
      return value.bind(target);
    },
  });
}

/** What system calls of the daemon read directories of snapshots while `action` runs. */
async function directoriesRead(pid: number, out: string, action: () => Promise<void>) {
  const args = ['-f', '-y', '-e', 'trace=getdents64', '-o', out, '-p', String(pid)];
  const strace = spawn('strace', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const exited = once(strace, 'exit');
  try {
    await within(PATIENCE_MS, 'strace', once(strace.stderr, 'data'));
    await action();
  } finally {
    strace.kill('SIGINT');
    await exited;
  }
  const lines = (await readFile(out, 'utf8')).split('\n');
  return lines.filter((line) => line.includes('/snapshots/'));
}

function straceMissing(): string | undefined {
  try {
    execFileSync('strace', ['-V']);
    return undefined;
  } catch {
    return 'there is no strace';
  }
}

for (const driver of DRIVERS) {
  testUnless(
    straceMissing(),
    `${driver}: neither Commit nor Usage reads a directory of a layer that was applied`,
    async () => {
      await using disk = await loopFileSystem(fileSystemFor(driver), 1024);
      const root = join(disk.path, 'root');
      await using daemon = await Daemon.start({ root, snapshotter: driver });
      const { content, applier, snapshotter } = daemon.client;
      const bytes = layerOf(...files(3000));
      const layer = descriptorOf(bytes);
      await using writer = await content.writer(background, 'upload', {});
      for (let at = 0; at < bytes.length; at += 1 << 20) {
        await writer.write(at, Buffer.from(bytes.subarray(at, at + (1 << 20))));
      }
      await writer.commit(NO_LABELS);
      const tell = async (key: string): Promise<void> => {
        await snapshotter.commit(background, `${key}, committed`, key, NO_LABELS, '');
        const usage = await snapshotter.usage(background, `${key}, committed`);
        expect(usage.inodes).toBe(3051);
      };
      const applied = await snapshotter.prepare(background, 'applied', '', NO_LABELS);
      await applier.apply(background, layer, applied);
      const out = join(disk.path, 'trace');
      const read = await directoriesRead(daemon.pid, out, () => tell('applied'));
      expect(read).toEqual([]);
      // So it looks where somebody else writes the same.
      const written = await snapshotter.prepare(background, 'written', '', NO_LABELS);
      const directory = ownDirectory(written);
      for (let n = 0; n < 50; n++) await mkdir(join(directory, `d${n}`));
      for (let n = 0; n < 3000; n++) await writeFile(join(directory, `d${n % 50}/f${n}`), '');
      const walk = await directoriesRead(daemon.pid, out, () => tell('written'));
      expect(walk.length).toBeGreaterThan(50);
    },
    120_000,
  );

  test(`${driver}: what is written between Apply and Commit is in Usage in the end`, async () => {
    await using site = await open(driver);
    const [clean, changed] = [await site.prepare('clean'), await site.prepare('changed')];
    for (const mounts of [clean, changed]) await site.apply(mounts, layerOf(...files(300)));
    const counted = walked(ownDirectory(clean));
    await writeFile(join(ownDirectory(changed), 'late'), Buffer.alloc(100_000, 1));
    let changes = 0;
    site.events.on('changed', () => changes++);
    await site.commit('clean');
    await site.commit('changed');
    expect(changes).toBe(2);
    expect(await site.usage('clean')).toEqual(counted);
    expect(await site.usage('changed')).toEqual(counted);
    await within(PATIENCE_MS, 'the check', once(site.events, 'changed'));
    const { inodes, size } = counted;
    expect(await site.usage('changed')).toEqual({ inodes: inodes + 1, size: size + 102_400 });
    // The other was checked before, and had no need of a record.
    expect(await site.usage('clean')).toEqual(counted);
    expect(changes).toBe(3);
  });

  test(`${driver}: nothing is checked while a layer is applied`, async () => {
    await using site = await open(driver);
    const [first, second] = [await site.prepare('first'), await site.prepare('second')];
    await site.apply(first, layerOf(...files(300)));
    const order: string[] = [];
    site.events.on('measured', () => order.push('measured'));
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    const bytes = layerOf(...files(100));
    const slow = async function* (): AsyncIterable<Uint8Array> {
      await held;
      yield Buffer.from(bytes);
    };
    const applied = site.apply(second, bytes, slow()).then(() => order.push('applied'));
    await site.commit('first');
    const measured = once(site.events, 'measured');
    for (let n = 0; n < 100; n++) await site.prepare(`${n}`);
    release();
    await applied;
    await within(PATIENCE_MS, 'the check', measured);
    expect(order).toEqual(['applied', 'measured']);
  });

  test(`${driver}: what a layer replaces is not in its Usage`, async () => {
    await using site = await open(driver);
    const mounts = await site.prepare('twice');
    const again = rawEntry({ name: 'd1/f1' }, Buffer.alloc(50_000, 1));
    await site.apply(mounts, layerOf(...files(300), again));
    await site.commit('twice');
    const { inodes, size } = await site.usage('twice');
    expect(inodes).toBe(351);
    await site.prepare('once').then((other) => site.apply(other, layerOf(...files(300))));
    await site.commit('once');
    const plain = await site.usage('once');
    expect({ inodes, size }).toEqual({ inodes: plain.inodes, size: plain.size + 53_248 - 4096 });
  });

  test(`${driver}: two layers that are applied to one directory are walked`, async () => {
    await using site = await open(driver);
    const mounts = await site.prepare('both');
    await Promise.all([
      site.apply(mounts, layerOf(...files(300))),
      site.apply(mounts, layerOf(...files(200).map((_, n) => rawEntry({ name: `e/f${n}` })))),
    ]);
    const { inodes, size } = walked(ownDirectory(mounts));
    await site.commit('both');
    expect(await site.usage('both')).toEqual({ inodes, size });
    expect(inodes).toBe(552);
  });
}

test('what Commit itself writes of a staged layer is counted, and not checked', async () => {
  await using site = await open('overlayfs');
  await site.prepare('base').then((mounts) => site.apply(mounts, layerOf(...files(20))));
  await site.commit('base');
  await within(PATIENCE_MS, 'the check', once(site.events, 'measured'));
  const staged = await site.prepare('staged', '', PARENT_COMES);
  const above = layerOf(rawEntry({ name: '.wh.d1' }), rawEntry({ name: 'd2/g' }), ...files(300));
  await site.apply(staged, above);
  let measured = 0;
  site.events.on('measured', () => measured++);
  await site.commit('staged', 'base, committed');
  expect(await site.usage('staged')).toEqual(walked(ownDirectory(staged)));
  // Had it been put on the list, it would come before this one.
  await site.prepare('next').then((mounts) => site.apply(mounts, layerOf(...files(300))));
  const next = once(site.events, 'measured');
  await site.commit('next');
  await within(PATIENCE_MS, 'the check', next);
  expect(measured).toBe(1);
});
