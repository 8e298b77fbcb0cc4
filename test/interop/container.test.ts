import { join } from 'node:path';
import { expect, test } from 'vitest';
import { run } from '../support/run.ts';
import { RELEASES, type Release } from './containerd.ts';
import { smallImage } from './images.ts';
import { Site, SNAPSHOTTERS, type SnapshotterName } from './site.ts';
import {
  expectBaseLine,
  importImage,
  insideSnapshot,
  listSnapshots,
  removeImage,
  snapshots,
  usageOf,
} from './steps.ts';

for (const release of RELEASES) {
  for (const snapshotter of SNAPSHOTTERS) {
    test(`containerd ${release.name}: what a container changed on ${snapshotter} is diffed, committed and built upon`, () =>
      changeAndCommit(release, snapshotter));
  }
}

const CHANGES = `
  echo from the container >/etc/added
  echo changed >>/etc/kept
  rm -r /etc/replaced
  mkdir /made
  ln /etc/added /made/linked
  chmod 4755 /unusual/twin`;

async function changeAndCommit(release: Release, snapshotter: SnapshotterName) {
  const site = await Site.withContainerd(release);
  const before = await site.stored();
  const image = await smallImage();
  await importImage(site, image, snapshotter, release.local);
  const command = ['/bin/sh', '-ec', CHANGES];
  await site.containerd.run('--snapshotter', snapshotter, image.reference, 'writer', ...command);

  const listed = await listSnapshots(site, snapshotter);
  expect(listed.find(({ key }) => key === 'writer')).toMatchObject({ kind: 'Active' });
  expect((await usageOf(site, snapshotter, 'writer')).bytes).toBeGreaterThan(0);
  await expectDiff(site, snapshotter);

  // In this order: a snapshot that no container needs is garbage until it is committed.
  await snapshots(site, snapshotter, 'commit', 'saved', 'writer');
  await site.containerd.ctr('containers', 'delete', '--keep-snapshot', 'writer');
  await snapshots(site, snapshotter, 'prepare', 'next', 'saved');
  const seen = 'cat etc/added etc/kept; ls etc; stat -c %h made/linked; stat -c %a unusual/twin';
  expect(await insideSnapshot(site, snapshotter, 'next', seen)).toBe(
    'from the container\nfrom the first layer\nchanged\nadded\nkept\n2\n4755\n',
  );

  await snapshots(site, snapshotter, 'rm', 'next', 'saved');
  await removeImage(site, image);
  await expectBaseLine(site, before);
}

/** The layer that `ctr snapshots diff` makes has the changes, and a whiteout for what was removed. */
async function expectDiff(site: Site, snapshotter: SnapshotterName): Promise<void> {
  const layer = join(site.folder, 'layer.tar.gz');
  const diff = ['snapshots', '--snapshotter', snapshotter, 'diff', 'writer'];
  await site.containerd.ctrInto(layer, ...diff);
  const names = (await run('tar', ['-tzf', layer])).split('\n');
  const expected = 'etc/added etc/kept etc/.wh.replaced made/ made/linked unusual/twin';
  expect(names).toEqual(expect.arrayContaining(expected.split(' ')));
  expect(names).not.toContain('etc/removed');
  expect(names).not.toContain('bin/busybox');
}
