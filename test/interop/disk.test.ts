// A plugin root whose ballast knows its containerd: `du`, `whois` and `where` by containerd's names.
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { DiskUsage, Identity, Place } from '../../src/disk/disk.ts';
import { quietUsage } from '../support/disk-use.ts';
import { run } from '../support/run.ts';
import { repository } from '../support/temporary.ts';
import { writeSmallImage } from '../standalone/small-image.ts';
import { RELEASES } from './containerd.ts';
import { Site } from './site.ts';

test.for(RELEASES)('behind containerd $name the names are its own', async (release) => {
  const site = await Site.withContainerd(release);
  const { containerd, namespace } = site;
  const archive = join(site.folder, 'image.tar');
  const image = await writeSmallImage(archive);
  const snapshotter = ['--snapshotter', 'ballast-overlay'];
  await containerd.ctr('images', 'import', ...release.local, ...snapshotter, archive);
  // The archive's own index goes with a collection.
  await containerd.ctr('leases', 'create', '--id', 'one');
  await containerd.ctr('leases', 'rm', '--sync', 'one');
  await containerd.ctr('containers', 'create', ...snapshotter, image.reference, 'box');
  const ballast = async <Answer>(...args: readonly string[]): Promise<Answer> =>
    JSON.parse(
      await run(join(repository, 'bin/ballast'), [...args, '--json', '--address', site.socket]),
    ) as Answer;

  // The snapshotter on btrfs has no snapshots, and its folder is as any other.
  const usage = await quietUsage(site.socket);
  expect(usage).toMatchObject({ total: usage.onDisk, namesUnknown: '' });
  expect(await ballast<DiskUsage>('du', '-v')).toMatchObject({ total: usage.total });
  const bytes = (key: string): number =>
    usage.snapshots.find((snapshot) => snapshot.key === key)?.bytes ?? 0;
  const owner = (type: string) => usage.owners.find((each) => each.type === type);
  const shared = bytes(image.chain[0]) + bytes(image.chain[1]);
  expect(owner('containers')).toEqual({
    type: 'containers',
    namespace,
    key: 'box',
    unique: bytes('box'),
    shared,
  });
  expect(bytes('box')).toBeGreaterThan(0);
  const content = usage.parts.find(({ type }) => type === 'content');
  expect(content).toMatchObject({ unreferenced: 0, shared: 0 });
  expect(owner('images')).toMatchObject({
    key: image.reference,
    unique: content?.bytes,
    shared,
  });

  const places = await ballast<readonly Place[]>('where', 'box');
  const box = places.find(({ key }) => key === 'box');
  const keptByBox = { type: 'containers', namespace, key: 'box' };
  const keptByImage = { type: 'images', namespace, key: image.reference };
  const [own] = await ballast<readonly Identity[]>('whois', join(box?.tree ?? '', 'any/file'));
  expect(own).toMatchObject({ namespaces: [namespace], key: 'box', parent: image.chain[1] });
  expect(own?.keptBy).toContainEqual(keptByBox);
  const [lower] = await ballast<readonly Identity[]>('whois', box?.lowers[1] ?? '');
  expect(lower).toMatchObject({ key: image.chain[0], layer: image.layers[0] });
  expect(lower?.keptBy).toEqual(expect.arrayContaining([keptByBox, keptByImage]));
  const keys = (await ballast<readonly Place[]>('where', image.reference)).map(({ key }) => key);
  const { manifest, config, layers, chain } = image;
  expect(keys.toSorted()).toEqual([manifest, config, ...layers, ...chain].toSorted());

  await containerd.stop();
  const without = await ballast<DiskUsage>('du', '-v');
  expect(without).toMatchObject({ total: usage.total, owners: [] });
  expect(without.namesUnknown).toContain('containerd.sock');
});
