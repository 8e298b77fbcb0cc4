// Layers that are applied before their parent is known: what a client sees of them until Commit and after it,
// whoever applies them, with kills in between.
import { createHash } from 'node:crypto';
import { on } from 'node:events';
import { watch } from 'node:fs';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { background, type RequestContext } from '../../src/base/context.ts';
import { digestOf } from '../../src/base/digest.ts';
import { isOpError } from '../../src/base/errors.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import { PLAIN_LAYER, type Applier, type Descriptor } from '../../src/diff/diff.ts';
import { chainIds, unpack, type ImageLayer } from '../../src/diff/unpack.ts';
import type { Mount } from '../../src/snapshotters/snapshotter.ts';
import { collect } from '../support/collect.ts';
import type { Client } from '../support/client.ts';
import { Daemon } from '../support/daemon.ts';
import { loopFileSystem } from '../support/loop-fs.ts';
import { ownDirectory } from '../support/mounts.ts';
import { run } from '../support/run.ts';
import { END, rawEntry, type RawHeader } from '../support/tar.ts';
import { differences } from './site.ts';

const PARENT_COMES = new Map([['containerd.io/snapshot/parent-chain-id', 'whatever']]);

const archive = (...entries: readonly (readonly [RawHeader, string?])[]): Buffer =>
  Buffer.concat([...entries.map(([header, body]) => rawEntry(header, body)), END]);

const file = (name: string, body = name): readonly [RawHeader, string] => [{ name }, body];
const directory = (name: string): readonly [RawHeader] => [{ name, type: '5', mode: '0000755' }];

/** /lib is a link of the base's to usr/lib. */
const BASE = archive(
  directory('usr'),
  directory('usr/lib'),
  file('usr/lib/old'),
  [{ name: 'lib', type: '2', link: 'usr/lib' }],
  directory('etc'),
  file('etc/hidden'),
  file('gone'),
);
const ABOVE = archive(
  file('lib/new'),
  file('.wh.gone', ''),
  file('etc/.wh..wh..opq', ''),
  file('etc/shown'),
  [{ name: 'usr/twin', type: '1', link: 'lib/old' }],
);

const manyFiles = (count: number, body: string): Buffer =>
  Buffer.concat([
    ...Array.from({ length: count }, (_, n) => rawEntry({ name: `d${n % 50}/f${n}` }, body)),
    END,
  ]);

/** A daemon on a file system that can be told to start anew. */
class Site implements AsyncDisposable {
  daemon: Daemon;
  readonly #root: AsyncDisposable;

  private constructor(daemon: Daemon, root: AsyncDisposable) {
    this.daemon = daemon;
    this.#root = root;
  }

  static async start(): Promise<Site> {
    await using parts = new AsyncDisposableStack();
    const root = parts.use(await loopFileSystem('ext4', 2048));
    const daemon = await Daemon.start({ root: root.path, snapshotter: 'overlayfs' });
    return new Site(daemon, parts.move());
  }

  get client(): Client {
    return this.daemon.client;
  }

  get snapshotter() {
    return this.client.snapshotter;
  }

  async kill(): Promise<void> {
    this.daemon = await this.daemon.restart('SIGKILL');
  }

  async layer(plain: Buffer): Promise<ImageLayer> {
    const sha256 = (bytes: Buffer) =>
      digestOf('sha256', createHash('sha256').update(bytes).digest('hex'));
    const bytes = gzipSync(plain, { level: 1 });
    const digest = sha256(bytes);
    try {
      await using writer = await this.client.content.writer(background, `upload ${digest}`, {});
      for (let at = 0; at < bytes.length; at += 1 << 20) {
        await writer.write(at, Buffer.from(bytes.subarray(at, at + (1 << 20))));
      }
      await writer.commit(NO_LABELS);
    } catch (error) {
      if (!isOpError(error, 'AlreadyExists')) throw error;
    }
    const descriptor = { mediaType: `${PLAIN_LAYER}+gzip`, digest, size: bytes.length };
    return { descriptor, diffId: sha256(plain) };
  }

  unpack(
    layers: readonly ImageLayer[],
    canRebase: boolean,
    applier: Applier = this.client.applier,
  ) {
    return unpack(background, { snapshotter: this.snapshotter, applier, layers, canRebase });
  }

  /** The base, committed. */
  async base(): Promise<string> {
    return this.unpack([await this.layer(BASE)], false);
  }

  /** A layer, applied before its parent is known. */
  async staged(key: string, plain: Buffer): Promise<readonly Mount[]> {
    const { descriptor } = await this.layer(plain);
    const mounts = await this.snapshotter.prepare(background, key, '', PARENT_COMES);
    await this.client.applier.apply(background, descriptor, mounts);
    return mounts;
  }

  commit(name: string, key: string, parent: string, ctx: RequestContext = background) {
    return this.snapshotter.commit(ctx, name, key, NO_LABELS, parent);
  }

  /** How the tree of a snapshot differs from that of layers one after another on the base. */
  async differsFromSequential(name: string, ...above: readonly Buffer[]): Promise<string> {
    const layers = [await this.layer(BASE)];
    for (const plain of above) layers.push(await this.layer(plain));
    const sequential = await this.unpack(layers, false);
    const views = await Promise.all(
      [name, sequential].map((of) =>
        this.snapshotter.view(background, `view of ${of}, ${Math.random()}`, of, NO_LABELS),
      ),
    );
    const [one = [], other = []] = views;
    return timelessDifferences(one, other);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.daemon[Symbol.asyncDispose]();
    await this.#root[Symbol.asyncDispose]();
  }
}

/** Directories that no entry tells of were made now and now. */
const timelessDifferences = async (one: readonly Mount[], other: readonly Mount[]) =>
  (await differences(one, other)).replaceAll(/^.*mtime: 1\d{9}\.\d+ -> 1\d{9}\..*\n/gm, '');

const stagedBeside = (mounts: readonly Mount[]): string =>
  join(dirname(ownDirectory(mounts)), 'staged');

async function until(path: string, isMet: (names: readonly string[]) => boolean): Promise<void> {
  const watcher = watch(path);
  const changes = on(watcher, 'change');
  while (!isMet(await readdir(path))) await changes.next();
  watcher.close();
}

test('until Commit a layer is in nobody’s way; then it is what it would have been on its parent', async () => {
  await using site = await Site.start();
  const base = await site.base();
  const mounts = await site.staged('key', ABOVE);
  const options = mounts.flatMap((mount) => mount.options);
  expect(mounts.map(({ type }) => type)).toEqual(['overlay']);
  expect(options.filter((option) => option.startsWith('lowerdir='))).toEqual([]);
  expect(await readdir(ownDirectory(mounts))).toEqual([]);
  expect((await site.snapshotter.usage(background, 'key')).inodes).toBeGreaterThan(3);
  await site.commit('name', 'key', base);
  expect((await site.snapshotter.stat(background, 'name')).parent).toBe(base);
  expect(await site.differsFromSequential('name', ABOVE)).toBe('');
  await site.snapshotter.cleanup(background);
  expect(await readdir(dirname(ownDirectory(mounts)))).not.toContain('staged');
  expect((await stat(join(ownDirectory(mounts), 'etc/shown'))).nlink).toBe(1);
});

test('a snapshot that stays without a parent keeps what its layer brought', async () => {
  await using site = await Site.start();
  await site.base();
  await site.staged('key', BASE);
  await site.commit('name', 'key', '');
  expect(await site.differsFromSequential('name')).toBe('');
});

test('several layers of one snapshot come in the order in which they were applied', async () => {
  await using site = await Site.start();
  const base = await site.base();
  const mounts = await site.staged('key', archive(file('both', 'first'), file('first')));
  const { descriptor } = await site.layer(archive(file('both', 'second'), file('.wh.first', '')));
  await site.client.applier.apply(background, descriptor, mounts);
  await site.commit('name', 'key', base);
  expect(await readFile(join(ownDirectory(mounts), 'both'), 'utf8')).toBe('second');
});

test('neither labels that change nor a restart change what the snapshot is', async () => {
  await using site = await Site.start();
  const base = await site.base();
  const mounts = await site.staged('key', ABOVE);
  await site.snapshotter.update(background, { name: 'key', labels: NO_LABELS }, ['labels']);
  expect(await site.snapshotter.mounts(background, 'key')).toEqual(mounts);
  await site.kill();
  expect(await site.snapshotter.mounts(background, 'key')).toEqual(mounts);
  await site.commit('name', 'key', base);
  expect(await site.differsFromSequential('name', ABOVE)).toBe('');
});

test('what does not fit the parent is refused at Commit, which leaves nothing and can be had again', async () => {
  await using site = await Site.start();
  const base = await site.base();
  const other = await site.unpack([await site.layer(archive(file('other')))], false);
  const mounts = await site.staged('key', ABOVE);
  await expect(site.commit('name', 'key', other)).rejects.toMatchObject({
    code: 'InvalidArgument',
    message: expect.stringMatching(
      /layer sha256:\w+: layer, entry "usr\/twin" at byte .*hard link/,
    ),
  });
  expect(await readdir(ownDirectory(mounts))).toEqual([]);
  await site.commit('name', 'key', base);
  expect(await site.differsFromSequential('name', ABOVE)).toBe('');
});

test('what a rebase that was refused did to a file is undone by the next', async () => {
  await using site = await Site.start();
  const base = await site.base();
  // There a link of the layer is one to its own file, here it is one to a file of the base.
  const other = await site.unpack(
    [await site.layer(archive([{ name: 'lib', type: '2', link: 'own' }]))],
    false,
  );
  const plain = archive(
    file('own/old'),
    [{ name: 'twin', type: '1', link: 'lib/old', mode: '0004600', uid: '0000007' }],
    [{ name: 'other twin', type: '1', link: 'usr/lib/old' }],
  );
  await site.staged('key', plain);
  await expect(site.commit('name', 'key', other)).rejects.toMatchObject({
    message: expect.stringContaining('"other twin"'),
  });
  await site.commit('name', 'key', base);
  expect(await site.differsFromSequential('name', plain)).toBe('');
});

test('what fits no parent is refused at Apply, and nothing of it stays', async () => {
  await using site = await Site.start();
  const mounts = await site.snapshotter.prepare(background, 'key', '', PARENT_COMES);
  for (const bad of [
    archive(file('fine'), file('.wh.x/below')),
    archive(file('fine'), file('.wh.', '')),
    archive(file('cut')).subarray(0, 513),
  ]) {
    const { descriptor } = await site.layer(bad);
    await expect(site.client.applier.apply(background, descriptor, mounts)).rejects.toMatchObject({
      code: expect.stringMatching(/InvalidArgument|DataLoss/),
    });
  }
  expect(await readdir(stagedBeside(mounts))).toEqual([]);
  expect(await readdir(ownDirectory(mounts))).toEqual([]);
});

test('a layer that is given up is gone, before Commit and within', async () => {
  await using site = await Site.start();
  const base = await site.base();
  const plain = manyFiles(20_000, '');
  const { descriptor } = await site.layer(plain);
  const mounts = await site.snapshotter.prepare(background, 'key', '', PARENT_COMES);
  const givenUp = async (place: string, work: (ctx: RequestContext) => Promise<unknown>) => {
    const controller = new AbortController();
    const started = until(place, (names) => names.length > 0);
    const done = work({ ...background, signal: controller.signal });
    done.catch(() => undefined);
    await started;
    controller.abort();
    await expect(done).rejects.toMatchObject({ code: 'Canceled' });
    await until(place, (names) => names.length === 0);
  };
  const { applier } = site.client;
  await givenUp(stagedBeside(mounts), (ctx) => applier.apply(ctx, descriptor, mounts));
  await applier.apply(background, descriptor, mounts);
  await givenUp(ownDirectory(mounts), (ctx) => site.commit('name', 'key', base, ctx));
  await site.commit('name', 'key', base);
  expect(await site.differsFromSequential('name', plain)).toBe('');
});

test('an image that is given up leaves no active snapshot', async () => {
  await using site = await Site.start();
  const plain = manyFiles(10_000, '');
  const layers = [await site.layer(BASE), await site.layer(plain), await site.layer(ABOVE)];
  const controller = new AbortController();
  const { applier } = site.client;
  const ctx = { ...background, signal: controller.signal };
  const givenUp: Applier = {
    apply: async (within, layer, mounts) => {
      if (layer.digest !== layers[1]?.descriptor.digest) {
        return applier.apply(within, layer, mounts);
      }
      const started = until(stagedBeside(mounts), (names) => names.length > 0);
      const applied = applier.apply(within, layer, mounts);
      await started;
      controller.abort();
      return applied;
    },
  };
  const { snapshotter } = site;
  await expect(
    unpack(ctx, { snapshotter, applier: givenUp, layers, canRebase: true }),
  ).rejects.toThrow();
  const infos = await collect(snapshotter.walk(background, []));
  expect(infos.filter(({ kind }) => kind !== 'committed')).toEqual([]);
  await snapshotter.cleanup(background);
  expect(site.daemon.stderr).not.toMatch(/defect/);
});

test('kill -9 within Commit, and after it, leaves a snapshot that can be committed, and then nothing else', async () => {
  await using site = await Site.start();
  const base = await site.base();
  const plain = manyFiles(20_000, 'x');
  const mounts = await site.staged('key', plain);
  const upper = ownDirectory(mounts);
  for (let round = 0; round < 3; round++) {
    const started = until(upper, (names) => names.length > 5 * round);
    const committing = site.commit('name', 'key', base);
    committing.catch(() => undefined);
    await started;
    await site.kill();
    await expect(committing).rejects.toThrow();
    expect((await readdir(upper)).length, 'the kill came in the middle').toBeGreaterThan(0);
    expect((await site.snapshotter.stat(background, 'key')).kind).toBe('active');
  }
  await site.commit('name', 'key', base);
  expect(await site.differsFromSequential('name', plain)).toBe('');
  await site.snapshotter.cleanup(background);
  // As if the kill had come behind the record.
  await mkdir(stagedBeside(mounts));
  await writeFile(join(stagedBeside(mounts), 'rest'), 'rest');
  await site.kill();
  await site.snapshotter.cleanup(background);
  expect((await readdir(dirname(upper))).toSorted()).toEqual(['fs', 'work']);
});

test('who writes overlay’s marks into the upper directory needs no layer of ours', async () => {
  await using site = await Site.start();
  const base = await site.base();
  const mounts = await site.snapshotter.prepare(background, 'key', '', PARENT_COMES);
  const upper = ownDirectory(mounts);
  await run('mknod', [join(upper, 'gone'), 'c', '0', '0']);
  await writeFile(join(upper, 'written'), 'by another differ');
  const { descriptor } = await site.layer(ABOVE);
  await expect(site.client.applier.apply(background, descriptor, mounts)).rejects.toMatchObject({
    code: 'FailedPrecondition',
  });
  await site.commit('name', 'key', base);
  const view = await site.snapshotter.view(background, 'view', 'name', NO_LABELS);
  expect(view.flatMap(({ options }) => options).join()).toContain(upper);
  expect((await readdir(upper)).toSorted()).toEqual(['gone', 'written']);
});

test('an overlay mount without lower directories of somebody else is for the next differ', async () => {
  await using site = await Site.start();
  await using folder = await loopFileSystem('ext4', 64);
  const upper = join(folder.path, 'upper');
  await mkdir(upper);
  const { descriptor } = await site.layer(ABOVE);
  const mounts = [{ type: 'overlay', source: 'overlay', options: ['rw', `upperdir=${upper}`] }];
  await expect(site.client.applier.apply(background, descriptor, mounts)).rejects.toMatchObject({
    code: 'Unimplemented',
  });
  expect(await readdir(upper)).toEqual([]);
});

test('twelve layers are applied at the same time, and committed as soon as their parents are', async () => {
  await using site = await Site.start();
  const plains = [BASE, ABOVE];
  for (let n = 0; n < 10; n++) {
    const body = 'x'.repeat(100_000 + n);
    const hidden = n === 0 ? 'lib/.wh.old' : `lib/.wh.own${n - 1}`;
    plains.push(archive(file(`lib/own${n}`, body), file('both', String(n)), file(hidden, '')));
  }
  const layersOf = (of: Site) => Promise.all(plains.map((plain) => of.layer(plain)));
  const layers = await layersOf(site);
  let [atWork, most] = [0, 0];
  const all = Promise.withResolvers<void>();
  const applier: Applier = {
    apply: async (ctx, layer: Descriptor, mounts) => {
      most = Math.max(most, ++atWork);
      if (atWork === layers.length) all.resolve();
      // Nobody's layer is done before all of them are asked for.
      await all.promise;
      const applied = await site.client.applier.apply(ctx, layer, mounts);
      atWork--;
      return applied;
    },
  };
  const top = await site.unpack(layers, true, applier);
  expect(most).toBe(12);
  const names = chainIds(layers.map(({ diffId }) => diffId));
  expect(top).toBe(names.at(-1));
  const infos = await collect(site.snapshotter.walk(background, []));
  expect(new Map(infos.map(({ name, parent }) => [name, parent]))).toEqual(
    new Map(names.map((name, n) => [name, names[n - 1] ?? ''])),
  );
  const view = await site.snapshotter.view(background, 'parallel', top, NO_LABELS);
  await using other = await Site.start();
  await other.unpack(await layersOf(other), false);
  const sequential = await other.snapshotter.view(background, 'sequential', top, NO_LABELS);
  expect(await timelessDifferences(view, sequential)).toBe('');
  // All of it is there: nothing is done again.
  expect(await site.unpack(layers, true, { apply: () => Promise.reject(new Error('again')) })).toBe(
    top,
  );
});
