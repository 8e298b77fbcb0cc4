// A stock `ctr` 2.x: an image that is removed leaves nothing, on the disk either.
import { readdirSync, watch } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { RELEASES } from '../interop/containerd.ts';
import { PATIENCE_MS, within } from '../support/patience.ts';
import { COLLECT, COLLECT_WHEN_ASKED } from './client.ts';
import { Alone } from './site.ts';
import { writeSmallImage } from './small-image.ts';

for (const release of RELEASES.filter(({ name }) => name.startsWith('2'))) {
  for (const flags of [['--sync'], []]) {
    const title = `ctr of containerd ${release.name}: images rm ${flags.join(' ')} leaves nothing`;
    test(title, async () => {
      const alone = await Alone.start(release, { gc: COLLECT });
      const archive = join(alone.folder, 'image.tar');
      const image = await writeSmallImage(archive);
      const files = (): readonly string[] =>
        readdirSync(join(alone.folder, 'root/content/blobs/sha256'));
      const folders = (): readonly string[] =>
        readdirSync(join(alone.folder, 'root/snapshotters/overlayfs/snapshots'));
      await alone.ctr('images', 'import', ...release.local, archive);
      expect(files().length).toBeGreaterThanOrEqual(4);
      expect(folders()).toHaveLength(2);

      const cleared = emptied(files, join(alone.folder, 'root/content/blobs/sha256'));
      const removed = emptied(folders, join(alone.folder, 'root/snapshotters/overlayfs/snapshots'));
      await alone.ctr('images', 'rm', ...flags, image.reference);
      if (flags.length > 0) expect(files()).toEqual([]);
      await cleared;
      await removed;
      expect(await alone.ctr('content', 'ls', '-q')).toBe('');
      expect((await alone.ctr('snapshots', 'ls')).trim().split('\n')).toHaveLength(1);
    });
  }
}

test('nothing is collected while a snapshotter is missing: what its snapshots refer to would go', async () => {
  const [release] = RELEASES.filter(({ name }) => name === '2.x');
  if (release === undefined) throw new Error('no containerd 2.x');
  const alone = await Alone.start(release, { gc: COLLECT_WHEN_ASKED });
  const file = join(alone.folder, 'ballast.toml');
  const config = await readFile(file, 'utf8');
  const collect = 'ctr leases create --id one >&2; ctr leases rm --sync one >&2;';
  const blobs = (): Promise<string> => alone.sh(`${collect} ctr content ls -q`);
  const digest = (await alone.sh('printf bytes | sha256sum')).slice(0, 64);
  await alone.sh(`printf bytes | ctr content ingest ref
    ctr snapshots --snapshotter native prepare key
    ctr snapshots --snapshotter native label key containerd.io/gc.root=x
    ctr snapshots --snapshotter native label key containerd.io/gc.ref.content.x=sha256:${digest}`);
  expect(await blobs()).toContain(digest);
  await writeFile(file, config.slice(0, config.indexOf('[snapshotter.native]')));
  await alone.kill();
  expect(await blobs()).toContain(digest);
  await writeFile(file, config);
  await alone.kill();
  expect(await blobs()).toContain(digest);
  await alone.sh('ctr snapshots --snapshotter native rm key');
  expect(await blobs()).toBe('');
});

/** Resolves when the folder is empty. */
async function emptied(list: () => readonly string[], folder: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const watcher = watch(folder, () => {
    if (list().length === 0) resolve();
  });
  try {
    await within(PATIENCE_MS, `the end of all in ${folder}`, promise);
  } finally {
    watcher.close();
  }
}
