import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { run } from '../support/run.ts';
import { RELEASES, type Release } from './containerd.ts';
import {
  debianImage,
  expectedTree,
  listTree,
  smallImage,
  twelveLayers,
  zstdImage,
  type Image,
} from './images.ts';
import { Site, type SnapshotterName } from './site.ts';
import {
  expectBaseLine,
  importImage,
  layoutBlobs,
  listSnapshots,
  manifestDigest,
  removeImage,
  usageOf,
} from './steps.ts';

// debootstrap may have to make the image first.
const FIRST_TIME_MS = 600_000;

const SCRIPT = 'cat /unusual/twin; echo written >/written; cat /written';
// dpkg keeps a digest of each file that its packages brought.
const VERIFY = `cd /; cat var/lib/dpkg/info/*.md5sums | md5sum --check --quiet; ${SCRIPT}`;

for (const release of RELEASES) {
  const debian = (what: string, snapshotter: SnapshotterName, make: () => Promise<Image>): void =>
    test(
      `containerd ${release.name} imports, runs, exports and removes a Debian image ${what}`,
      { timeout: FIRST_TIME_MS },
      async () => comeAndGo(release, snapshotter, await make(), VERIFY),
    );
  debian('on overlay', 'ballast-overlay', debianImage);
  debian('on btrfs', 'ballast-btrfs', debianImage);
  // Others unpack by a differ of their own.
  if (release.name !== '1.6') {
    debian('of zstd layers on overlay', 'ballast-overlay', zstdImage);
    debian('of twelve layers on overlay', 'ballast-overlay', twelveLayers);
  }

  test(`containerd ${release.name} imports, runs, exports and removes a small image on native`, async () =>
    comeAndGo(release, 'ballast-native', await smallImage(), SCRIPT));
}

async function comeAndGo(
  release: Release,
  snapshotter: SnapshotterName,
  image: Image,
  script: string,
) {
  const site = await Site.withContainerd(release);
  const before = await site.stored();
  await importImage(site, image, snapshotter);

  await expectBlobs(site, image);
  await expectChain(site, snapshotter, image);
  await expectTree(site, snapshotter, image);
  const where = ['--rm', '--snapshotter', snapshotter, image.reference, 'first'];
  const printed = await site.containerd.run(...where, '/bin/sh', '-ec', script);
  expect(printed).toBe('one file of two names\nwritten\n');
  await expectExport(site, release, image);

  await removeImage(site, image);
  expect(await listSnapshots(site, snapshotter)).toEqual([]);
  await expectBaseLine(site, before);
}

/**
 * Every blob of the image lies in ballast's blob folder, and its bytes are what its name says. (There
 * may be others: containerd keeps the archive's index until the next collection.)
 */
async function expectBlobs(site: Site, image: Image): Promise<void> {
  const expected = await layoutBlobs(image.layout);
  const { blobs, ingests } = await site.stored();
  expect(blobs).toEqual(expect.arrayContaining([...expected]));
  expect(ingests).toEqual([]);
  const folder = join(site.root, 'content/blobs/sha256');
  const sums = await run('sh', ['-c', `cd ${folder} && sha256sum ${expected.join(' ')}`]);
  for (const line of sums.trim().split('\n')) {
    const [digest, name] = line.split(/\s+/);
    expect(digest).toBe(name);
  }
}

/** One committed snapshot per layer, each on top of the one before, each with a size that is its own. */
async function expectChain(site: Site, snapshotter: SnapshotterName, image: Image): Promise<void> {
  const listed = await listSnapshots(site, snapshotter);
  expect(listed.map(({ kind }) => kind)).toEqual(Array(image.layers).fill('Committed'));
  let parent = '';
  let nothing = 0;
  for (let layer = 0; layer < image.layers; layer++) {
    const next = listed.find((snapshot) => snapshot.parent === parent);
    expect(next, `no snapshot on top of '${parent}'`).toBeDefined();
    parent = next?.key ?? '';
    const usage = await usageOf(site, snapshotter, parent);
    if (usage.inodes === 0) nothing++;
    else expect(usage.bytes).toBeGreaterThan(0);
  }
  // On btrfs the layer that only removes a file adds nothing to its parent.
  expect(nothing).toBe(snapshotter === 'ballast-btrfs' ? 1 : 0);
  const tree = await site.containerd.ctr('snapshots', '--snapshotter', snapshotter, 'tree');
  expect(tree.match(/sha256:/g)).toHaveLength(image.layers);
}

/** A view of the image is, file by file, what umoci makes of it. */
async function expectTree(site: Site, snapshotter: SnapshotterName, image: Image): Promise<void> {
  const expected = await expectedTree(image);
  const target = join(site.folder, 'view');
  await mkdir(target);
  await site.containerd.ctr(
    'images',
    'mount',
    '--snapshotter',
    snapshotter,
    image.reference,
    target,
  );
  try {
    expect(await listTree(target, image.touched)).toEqual(expected);
  } finally {
    await site.containerd.ctr('images', 'unmount', '--rm', '--snapshotter', snapshotter, target);
  }
}

/** An exported image is the one that came in, blob by blob. */
async function expectExport(site: Site, release: Release, image: Image): Promise<void> {
  const archive = join(site.folder, 'exported.tar');
  const layout = join(site.folder, 'exported');
  await site.containerd.ctr('images', 'export', ...release.local, archive, image.reference);
  await mkdir(layout);
  await run('tar', ['-C', layout, '-xf', archive]);
  expect(await manifestDigest(layout)).toBe(await manifestDigest(image.layout));
  const exported = await layoutBlobs(layout);
  expect(await layoutBlobs(image.layout)).toEqual(expect.arrayContaining([...exported]));
  for (const name of exported) {
    await run('cmp', [
      join(layout, 'blobs/sha256', name),
      join(image.layout, 'blobs/sha256', name),
    ]);
  }
}
