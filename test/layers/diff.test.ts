// Diff over a daemon: what it stores, applied to the older snapshot, gives the tree of the newer one.
import { createHash, randomBytes } from 'node:crypto';
import { chmod, mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { extract as tarStream } from 'tar-stream';
import { expect, test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { isOpError } from '../../src/base/errors.ts';
import { TAR_LIMITS } from '../../src/diff/apply/limits.ts';
import type { TarEntry } from '../../src/diff/apply/tar-entry.ts';
import { TarReader } from '../../src/diff/apply/tar-reader.ts';
import { DRIVERS } from '../support/daemon.ts';
import { PATIENCE_MS, within } from '../support/patience.ts';
import { run } from '../support/run.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { changeTree, makeTree } from './change-tree.ts';
import { DEFAULTS, differences, GZIP, inside, PLAIN, Site, ZSTD } from './site.ts';

function entriesOf(archive: Uint8Array): readonly TarEntry[] {
  const entries: TarEntry[] = [];
  const sink = { begin: (entry: TarEntry) => void entries.push(entry), body() {}, end() {} };
  const reader = new TarReader(sink, TAR_LIMITS);
  reader.push(archive);
  reader.finish();
  return entries;
}

const namesOf = (archive: Uint8Array): readonly string[] =>
  entriesOf(archive).map(({ path }) => path.toString('latin1'));

const digestOf = (bytes: Uint8Array): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

for (const driver of DRIVERS) {
  test(`${driver}: every type of file and every kind of change comes back by Apply`, async () => {
    await using site = await Site.start(driver);
    const base = await site.layer('', makeTree);
    const { key, mounts } = await site.prepare(base);
    // While somebody else has the snapshot mounted, as with a container that runs.
    const [live, again] = await inside(mounts, async (root) => {
      await changeTree(root);
      const older = await site.view(base);
      return [await site.compare(older, mounts), await site.compare(older, mounts)];
    });
    expect(again).toEqual(live);
    const changed = await site.commit(key);
    const committed = await site.compare(await site.view(base), await site.view(changed));
    expect(committed).toEqual(live);
    const applied = await site.applied(base, live);
    const [want, got] = [await site.view(changed), await site.view(applied)];
    // Sockets and the administrator's attributes are in no layer.
    expect(await differences(want, got)).toBe(
      '! kept/deep/f\txattr:trusted.hidden: 74 -> None\n- socket\tsocket\n',
    );
    const whole = await site.compare([], await site.view(changed));
    const alone = await site.applied('', whole);
    expect(await differences(got, await site.view(alone))).toBe('');
  });

  test(`${driver}: entries come in order, with marks for what is gone`, async () => {
    await using site = await Site.start(driver);
    const base = await site.layer('', makeTree);
    const { mounts } = await site.prepare(base);
    await inside(mounts, changeTree);
    const layer = await site.compare(await site.view(base), mounts, { mediaType: PLAIN });
    const names = namesOf(await site.bytesOf(layer));
    expect(names).toContain('.wh.gone');
    expect(names).toContain('.wh.old-\xff\xfe');
    expect(names).toContain('etc/.wh.b');
    expect(names.filter((name) => name.startsWith('gone'))).toEqual([]);
    expect(names.filter((name) => /^to-file\/|socket/.test(name))).toEqual([]);
    const marks = driver === 'overlayfs' ? ['.wh..wh..opq'] : ['.wh.f'];
    expect(names.filter((name) => name.startsWith('opaque/'))).toEqual([
      'opaque/',
      ...marks.map((mark) => `opaque/${mark}`),
      'opaque/other',
    ]);
    // A file with a new name has its bytes there; all that it is called follows, as links. In overlayfs
    // these are no names of one file any more, once one of them has changed.
    const links = driver === 'overlayfs' ? ['fourth', 'first'] : ['first', 'fourth', 'second'];
    expect(names.filter((name) => /^links\/|^kept\/renamed/.test(name))).toEqual([
      'kept/renamed',
      'links/',
      ...links.map((name) => `links/${name}`),
    ]);
    for (const [index, name] of names.entries()) {
      const above = name.replace(/[^/]+\/?$/, '');
      if (above !== '') expect(names.slice(0, index)).toContain(above);
    }
  });

  test(`${driver}: trees further apart than a layer are compared too`, async () => {
    await using site = await Site.start(driver);
    const base = await site.layer('', makeTree);
    const changed = await site.layer(base, changeTree);
    const { key, mounts } = await site.prepare(changed);
    const write = (root: string): Promise<void> => writeFile(join(root, 'etc/top'), 'top');
    const [above, all] = await inside(mounts, async (root) => {
      await write(root);
      return [await site.compare(await site.view(base), mounts), await site.compare([], mounts)];
    });
    const top = await site.view(await site.commit(key));
    const lost = '! kept/deep/f\txattr:trusted.hidden: 74 -> None\n- socket\tsocket\n';
    for (const [parent, layer] of [
      [base, above],
      ['', all],
    ] as const) {
      const applied = await site.view(await site.applied(parent, layer));
      expect(await differences(top, applied)).toBe(lost);
    }
  });

  test(`${driver}: what has not changed is in no layer`, async () => {
    await using site = await Site.start(driver);
    const base = await site.layer('', async (root) => {
      await makeTree(root);
      await chmod(root, 0o755);
    });
    const older = await site.view(base);
    const { mounts } = await site.prepare(base);
    // overlayfs copies them to the upper directory all the same.
    await inside(mounts, async (root) => {
      for (const name of ['etc/a', 'same-size', 'kept/deep']) {
        await chmod(join(root, name), (await stat(join(root, name))).mode);
      }
    });
    for (const newer of [older, mounts]) {
      const layer = await site.compare(older, newer, { mediaType: PLAIN });
      expect(namesOf(await site.bytesOf(layer))).toEqual([]);
    }
  });
}

test('layers are plain, gzip or zstd, by the names of OCI and of Docker', async () => {
  await using site = await Site.start('overlayfs');
  const newer = await site.view(await site.layer('', makeTree));
  const plain = await site.bytesOf(await site.compare([], newer, { mediaType: PLAIN }));
  const docker = 'application/vnd.docker.image.rootfs.diff.tar';
  const formats: readonly (readonly [string, (bytes: Buffer) => Buffer])[] = [
    ['', gunzipSync],
    [GZIP, gunzipSync],
    [`${docker}.gzip`, gunzipSync],
    [ZSTD, zstdDecompressSync],
    [`${docker}.zstd`, zstdDecompressSync],
    [docker, (bytes) => bytes],
  ];
  for (const [mediaType, decompress] of formats) {
    const layer = await site.compare([], newer, { mediaType });
    expect(layer.mediaType).toBe(mediaType === '' ? GZIP : mediaType);
    const bytes = await site.bytesOf(layer);
    expect([bytes.length, digestOf(bytes)]).toEqual([layer.size, layer.digest]);
    expect(decompress(bytes).equals(plain), mediaType).toBe(true);
    // A gzip header tells when it was made, unless that is 0. RFC 1952
    if (decompress === gunzipSync) expect(bytes.readUInt32LE(4)).toBe(0);
    const { labels } = await site.daemon.client.content.info(background, layer.digest);
    expect(labels.get('containerd.io/uncompressed')).toBe(digestOf(plain));
  }
  await expect(site.compare([], newer, { mediaType: 'text/plain' })).rejects.toMatchObject({
    code: 'Unimplemented',
  });
});

test('GNU tar and tar-stream read a layer as we do', async () => {
  await using site = await Site.start('native');
  await using folder = await temporaryFolder('layer');
  const base = await site.layer('', makeTree);
  const newer = await site.view(await site.layer(base, changeTree));
  const bytes = await site.bytesOf(await site.compare([], newer, { mediaType: PLAIN }));
  const archive = join(folder.path, 'layer.tar');
  await writeFile(archive, bytes);
  const unpacked = join(folder.path, 'unpacked');
  await mkdir(unpacked);
  const flags = ['--numeric-owner', '--xattrs', '--xattrs-include=*', '-pxf', archive];
  await run('tar', [...flags, '-C', unpacked]);
  const bind = [{ type: 'bind', source: unpacked, options: ['rbind'] }];
  expect(await differences(bind, newer)).toBe(
    '! kept/deep/f\txattr:trusted.hidden: None -> 74\n+ socket\tsocket\n',
  );

  const ours = entriesOf(bytes).map(({ path, size }) => [path.toString(), size]);
  const theirs: (string | number)[][] = [];
  const extract = tarStream();
  extract.end(bytes);
  for await (const entry of extract) {
    const { name, size } = entry.header;
    theirs.push([name, size ?? 0]);
    entry.resume();
  }
  // It knows nothing of sparse files, and shows their map as contents.
  const stored = theirs.map(([name, size]) =>
    name === 'sparse' ? [name, 40 << 20] : [name, size],
  );
  expect(stored).toEqual(ours);
});

test('the blob has the labels asked for, and the ref is free again', async () => {
  await using site = await Site.start('overlayfs');
  const { content } = site.daemon.client;
  const newer = await site.view(await site.layer('', makeTree));
  const labels = new Map([
    ['containerd.io/gc.root', 'now'],
    ['__proto__', 'x'],
  ]);
  const { digest } = await site.compare([], newer, { ref: 'a/ref', labels });
  const info = await content.info(background, digest);
  for (const [key, value] of labels) expect(info.labels.get(key)).toBe(value);
  expect(await content.statuses(background, [])).toEqual([]);
});

test('a blob that is there already keeps its labels, and gets its diff ID', async () => {
  await using site = await Site.start('overlayfs');
  const { content } = site.daemon.client;
  const newer = await site.view(await site.layer('', makeTree));
  const first = await site.compare([], newer);
  const { labels } = await content.info(background, first.digest);
  const kept = new Map([['mine', 'yes']]);
  await content.update(background, { digest: first.digest, labels: kept }, []);
  const others = { labels: new Map([['other', 'no']]) };
  expect(await site.compare([], newer, others)).toEqual(first);
  expect((await content.info(background, first.digest)).labels).toEqual(
    new Map([...kept, ...labels]),
  );
  expect(await content.statuses(background, [])).toEqual([]);
});

test('no time in a layer is later than the epoch asked for', async () => {
  await using site = await Site.start('overlayfs');
  const base = await site.layer('', makeTree);
  const newer = await site.view(await site.layer(base, changeTree));
  const older = await site.view(base);
  const options = { mediaType: PLAIN, sourceDateEpoch: 1_550_000_000_250_000_000n };
  const entries = entriesOf(await site.bytesOf(await site.compare(older, newer, options)));
  const times = new Map(entries.map(({ path, mtime }) => [path.toString('latin1'), mtime]));
  expect(times.get('etc/a')).toEqual({ seconds: 1_550_000_000, nanoseconds: 250_000_000 });
  expect(times.get('etc/touched')).toEqual({ seconds: 1_500_000_000, nanoseconds: 250_000_000 });
  expect(times.get('.wh.gone')).toEqual({ seconds: 0, nanoseconds: 0 });
  const late = entries.filter(({ mtime }) => mtime.seconds > 1_550_000_000);
  expect(late).toEqual([]);
});

test('what fails or is given up leaves no ingest, and the next one goes well', async () => {
  await using site = await Site.start('overlayfs');
  const { content, comparer } = site.daemon.client;
  const base = await site.layer('', async (root) => {
    for (let index = 0; index < 15; index++) {
      await writeFile(join(root, `random-${index}`), randomBytes(4 << 20));
    }
  });
  const newer = await site.view(base);
  const missing = [{ type: 'bind', source: '/nonexistent', options: ['ro', 'rbind'] }];
  await expect(site.compare(newer, missing)).rejects.toMatchObject({ code: 'NotFound' });
  await expect(site.compare(newer, [])).rejects.toMatchObject({ code: 'InvalidArgument' });

  const controller = new AbortController();
  const ctx = { ...background, signal: controller.signal };
  const given = comparer.compare(ctx, [], newer, { ...DEFAULTS, ref: 'given up' });
  const ended = given.catch((error: unknown) => error);
  await until(async () => (await content.statuses(background, []))[0]?.offset);
  controller.abort();
  expect(isOpError(await ended, 'Canceled')).toBe(true);
  await until(async () => (await content.statuses(background, [])).length === 0);
  // The abort may still be at work.
  await until(() => site.compare([], newer, { ref: 'given up' }).catch(() => undefined));
});

/** Asks until the answer is one. */
async function until(isMet: () => Promise<unknown>): Promise<void> {
  await within(
    PATIENCE_MS,
    'a change',
    (async () => {
      while (!(await isMet()));
    })(),
  );
}
