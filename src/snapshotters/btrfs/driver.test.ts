import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { imagePath, loopFileSystem } from '../../../test/support/loop-fs.ts';
import { ownDirectory, performMounts } from '../../../test/support/mounts.ts';
import { run } from '../../../test/support/run.ts';
import { makeTemporaryRoot, temporaryFolder } from '../../../test/support/temporary.ts';
import { background } from '../../base/context.ts';
import { createFileJobs } from '../../platform/jobs/file-jobs.ts';
import { createLinux } from '../../platform/linux/linux.ts';
import type { ConfigTable, SnapshotNode } from '../driver.ts';
import type { Kind } from '../snapshotter.ts';
import { btrfs } from './driver.ts';

const workerEntry = join(import.meta.dirname, '../../daemon/worker.ts');
const { signal } = background;
const rebaser = { rebase: async () => undefined };

const node = (id: string, kind: Kind, ...parentIds: string[]): SnapshotNode => ({
  id,
  kind,
  parentIds,
  labels: new Map(),
});

const limited = (id: string, maxSize: string, ...parentIds: string[]): SnapshotNode => ({
  ...node(id, 'active', ...parentIds),
  labels: new Map([['containerd.io/snapshot/max-size', maxSize]]),
});

async function open(root: string, table: ConfigTable = {}) {
  const jobs = createFileJobs({ workerEntry });
  const warnings: string[] = [];
  const warn = (_fields: unknown, message: string): void => void warnings.push(message);
  try {
    const dependencies = { linux: createLinux(), jobs, rebaser, warn };
    const driver = await btrfs.open({ root, durability: 'full', table }, dependencies);
    await driver.list();
    return {
      driver,
      warnings,
      directoryOf: (of: SnapshotNode) => ownDirectory(driver.mounts(of)),
      /** Makes it, lets `fill` write into it, and seals it. */
      layer: async (of: SnapshotNode, fill: (path: string) => Promise<void>) => {
        await driver.create(of);
        await fill(ownDirectory(driver.mounts(of)));
        const { usage } = await driver.seal(of, undefined, signal);
        expect(driver.committed?.({ ...of, kind: 'committed' })).toBe(true);
        return usage;
      },
      async [Symbol.asyncDispose]() {
        await driver[Symbol.asyncDispose]();
        await jobs[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await jobs[Symbol.asyncDispose]();
    throw error;
  }
}

const MiB = 1 << 20;
const write = (path: string, mebibytes: number): Promise<void> =>
  writeFile(path, Buffer.alloc(mebibytes * MiB, 7), { flush: true });

async function subvolumesOf(path: string): Promise<readonly string[]> {
  const list = await run('btrfs', ['subvolume', 'list', path]);
  return list.split('\n').filter((line) => line !== '');
}

test('usage counts what differs from the parent, path by path, and is not walked again', async () => {
  await using disk = await loopFileSystem('btrfs', 512);
  await using opened = await open(disk.path);
  const { driver, directoryOf } = opened;
  const whole = await opened.layer(node('1', 'active'), async (path) => {
    await mkdir(join(path, 'deep/er'), { recursive: true });
    await mkdir(join(path, 'moved'));
    for (const name of ['deep/er/kept', 'deep/er/changed', 'moved/a', 'linked', 'gone']) {
      await write(join(path, name), 1);
    }
    await writeFile(join(path, 'archived'), 'same', { flush: true });
    await run('touch', ['-d', '@1000000000', join(path, 'archived')]);
  });
  expect(whole).toEqual({ inodes: 10, size: 5 * MiB + 4096 });

  const child = node('2', 'active', '1');
  await driver.create(child);
  expect(await driver.usage(child, signal)).toEqual({ inodes: 0, size: 0 });
  const path = directoryOf(child);
  await write(join(path, 'deep/er/changed'), 2);
  await run('mv', [join(path, 'moved'), join(path, 'elsewhere')]);
  await run('ln', [join(path, 'linked'), join(path, 'twin')]);
  await run('rm', [join(path, 'gone')]);
  await run('touch', ['-a', join(path, 'deep/er/kept')]);
  // Made anew, as by unpacking an archive: the same for whoever compares.
  await run('rm', [join(path, 'archived')]);
  await writeFile(join(path, 'archived'), 'same', { flush: true });
  await run('touch', ['-d', '@1000000000', join(path, 'archived')]);
  // changed (2), elsewhere and elsewhere/a (1), twin (1)
  const usage = { inodes: 4, size: 4 * MiB };
  expect(await driver.usage(child, signal)).toEqual(usage);
  expect(await driver.usage(child, signal)).toEqual(usage);
  await writeFile(join(path, 'archived'), 'diff');
  await run('touch', ['-d', '@1000000000', join(path, 'archived')]);
  expect(await driver.usage(child, signal)).toEqual({ inodes: 5, size: 4 * MiB + 4096 });
  const { usage: sealed } = await driver.seal(child, undefined, signal);
  expect(sealed).toEqual({ inodes: 5, size: 4 * MiB + 4096 });
});

test('what was committed cannot be written to, and keeps what it was', async () => {
  await using disk = await loopFileSystem('btrfs', 256);
  await using opened = await open(disk.path);
  const { driver } = opened;
  const base = node('1', 'active');
  await driver.create(base);
  await using still = await performMounts(driver.mounts(base));
  await writeFile(join(still.path, 'file'), 'committed');
  await driver.seal(base, undefined, signal);
  await writeFile(join(still.path, 'file'), 'too late');
  const view = node('2', 'view', '1');
  await driver.create(view);
  await using mounted = await performMounts(driver.mounts(view));
  expect(await readFile(join(mounted.path, 'file'), 'utf8')).toBe('committed');
  await expect(writeFile(join(disk.path, 'snapshots/1/layer/new'), '')).rejects.toThrow(/EROFS/);
});

test('subvolumes that a container made inside go too, read-only ones and those in them', async () => {
  await using disk = await loopFileSystem('btrfs', 256);
  await using opened = await open(disk.path);
  const { driver, directoryOf } = opened;
  const active = node('1', 'active');
  await driver.create(active);
  const path = directoryOf(active);
  await run('btrfs', ['subvolume', 'create', join(path, 'outer')]);
  await mkdir(join(path, 'outer/in a directory'));
  await run('btrfs', ['subvolume', 'create', join(path, 'outer/in a directory/inner')]);
  await writeFile(join(path, 'outer/in a directory/inner/file'), 'x');
  await run('btrfs', ['property', 'set', join(path, 'outer/in a directory/inner'), 'ro', 'true']);
  await run('btrfs', ['property', 'set', join(path, 'outer'), 'ro', 'true']);
  const usage = await driver.usage(active, signal);
  expect(await driver.seal(active, undefined, signal)).toMatchObject({ usage });
  expect(driver.committed?.({ ...active, kind: 'committed' })).toBe(true);
  await driver.settled?.();
  expect((await subvolumesOf(disk.path)).map((line) => line.split(' ').at(-1))).toEqual([
    'snapshots/1/layer',
  ]);
  await driver.discard(['1', '77'], signal);
  expect(await subvolumesOf(disk.path)).toEqual([]);
  expect(await driver.list()).toEqual([]);
});

test('a crash between the steps of a Commit leaves nothing that is not put right', async () => {
  await using disk = await loopFileSystem('btrfs', 256);
  const [sealed, written] = [node('1', 'active'), node('2', 'active')];
  {
    await using opened = await open(disk.path);
    for (const each of [sealed, written]) {
      await opened.driver.create(each);
      await opened.driver.seal(each, undefined, signal);
    }
    await opened.driver.create(node('3', 'active', '1'));
  }
  await run('btrfs', ['subvolume', 'delete', join(disk.path, 'snapshots/3/fs')]);
  await using opened = await open(disk.path);
  const { driver } = opened;
  expect((await driver.list()).toSorted()).toEqual(['1', '2', '3']);
  // The record of the first says committed, of the others not.
  expect(driver.committed?.({ ...sealed, kind: 'committed' })).toBe(true);
  await driver.repair(written);
  await driver.repair(node('3', 'active', '1'));
  await driver.settled?.();
  const left = (await subvolumesOf(disk.path)).map((line) => line.split(' ').at(-1));
  expect(left.toSorted()).toEqual(['snapshots/1/layer', 'snapshots/2/fs', 'snapshots/3/fs']);
  expect(driver.mounts(node('3', 'active', '1'))[0]?.options).toHaveLength(1);
});

test('a lost layer is told of, and refused as a parent by its name', async () => {
  await using disk = await loopFileSystem('btrfs', 256);
  await using opened = await open(disk.path);
  await opened.layer(node('1', 'active'), async () => undefined);
  await opened.driver.settled?.();
  await run('btrfs', ['subvolume', 'delete', join(disk.path, 'snapshots/1/layer')]);
  await using again = await open(disk.path);
  expect(again.driver.committed?.(node('1', 'committed'))).toBe(false);
  for (const kind of ['active', 'view'] as const) {
    await expect(again.driver.create(node('2', kind, '1'))).rejects.toMatchObject({
      code: 'FailedPrecondition',
      message: expect.stringContaining('snapshots/1/layer'),
    });
  }
  await again.driver.discard(['1'], signal);
  expect(await again.driver.list()).toEqual([]);
});

test('a file system of several devices is mounted by one of them', async () => {
  await using point = await temporaryFolder('several');
  const images: string[] = [];
  const devices: string[] = [];
  try {
    for (let count = 0; count < 2; count++) {
      const image = await imagePath('device');
      images.push(image);
      await run('truncate', ['-s', '256M', image]);
      devices.push((await run('losetup', ['-f', '--show', image])).trim());
    }
    await run('mkfs.btrfs', ['-q', '-d', 'raid0', '-m', 'raid1', ...devices]);
    await run('mount', [devices[1] ?? '', point.path]);
    {
      await using opened = await open(point.path);
      const active = node('1', 'active');
      await opened.driver.create(active);
      expect(devices).toContain(opened.driver.mounts(active)[0]?.source);
      await using mounted = await performMounts(opened.driver.mounts(active));
      await writeFile(join(mounted.path, 'file'), 'x');
      expect(await readFile(join(point.path, 'snapshots/1/fs/file'), 'utf8')).toBe('x');
    }
  } finally {
    await run('umount', [point.path]).catch(() => undefined);
    for (const device of devices) await run('losetup', ['-d', device]);
    for (const image of images) await run('rm', ['-r', dirname(image)]);
  }
});

test('a root below a subvolume, a nested mount, or a bind mount of one', async () => {
  await using disk = await loopFileSystem('btrfs', 256);
  const device = await sourceOf(disk.path);
  await run('btrfs', ['subvolume', 'create', join(disk.path, 'outer')]);
  const points = [await makeTemporaryRoot('nested'), await makeTemporaryRoot('bound')];
  const [nested = '', bound = ''] = points;
  try {
    await run('mount', ['-o', 'subvol=outer', device, nested]);
    await mkdir(join(nested, 'of a folder'));
    await run('mount', ['--bind', join(nested, 'of a folder'), bound]);
    for (const root of [join(disk.path, 'outer'), nested, bound]) {
      await using opened = await open(join(root, 'here'));
      const active = node('1', 'active');
      await opened.driver.create(active);
      const [mount] = opened.driver.mounts(active);
      expect(mount).toEqual({
        type: 'btrfs',
        source: device,
        options: [expect.stringMatching(/^subvolid=\d+$/)],
      });
      await using mounted = await performMounts(opened.driver.mounts(active));
      await writeFile(join(mounted.path, 'file'), root);
      expect(await readFile(join(root, 'here/snapshots/1/fs/file'), 'utf8')).toBe(root);
      await opened.driver.discard(['1'], signal);
      await run('rm', ['-r', join(root, 'here')]);
    }
  } finally {
    for (const point of points.toReversed()) {
      await run('umount', [point]).catch(() => undefined);
      await run('rmdir', [point]);
    }
  }
});

test('a root that is not on btrfs is refused with what to do', async () => {
  await using disk = await loopFileSystem('ext4', 32);
  await expect(open(disk.path)).rejects.toMatchObject({
    code: 'FailedPrecondition',
    message: expect.stringMatching(/is on ext4.*mkfs\.btrfs/),
  });
  expect(() => btrfs.checkConfig({ quota: true })).toThrow(/quota = true: must be "on"/);
  expect(() => btrfs.checkConfig({ max_size: 'enforced' })).toThrow(/"hint" or "enforce"/);
  expect(() => btrfs.checkConfig({ quota: 'on', max_size: 'enforce' })).not.toThrow();
});

for (const quotas of ['classic', 'simple'] as const) {
  test(`with ${quotas} quotas a snapshot's size limit holds for it alone, also after a restart`, async () => {
    await using disk = await loopFileSystem('btrfs', 512);
    if (quotas === 'classic') await run('btrfs', ['quota', 'enable', disk.path]);
    const table = { quota: 'on', max_size: 'enforce' };
    const [small, other] = [limited('2', String(16 * MiB), '1'), node('3', 'active', '1')];
    {
      await using opened = await open(disk.path, table);
      await opened.layer(node('1', 'active'), (path) => write(join(path, 'base'), 32));
      await opened.driver.create(small);
      await opened.driver.create(other);
      const path = opened.directoryOf(small);
      const before = await exclusiveOf(disk.path, path);
      await write(join(path, 'fits'), 8);
      const exclusive = await exclusiveOf(disk.path, path);
      expect(Math.abs(exclusive - before - 8 * MiB)).toBeLessThan(MiB / 4);
      await opened.driver.usage(small, signal);
      const shown = opened.driver.shownLabels?.(small);
      expect(shown?.get('containerd.io/snapshot/btrfs.exclusive')).toBe(String(exclusive));
      await expect(write(join(path, 'too much'), 16)).rejects.toThrow(/EDQUOT|error -122/);
      await write(join(opened.directoryOf(other), 'others go on'), 32);
    }
    await using opened = await open(disk.path, table);
    await opened.driver.repair(small);
    const path = opened.directoryOf(small);
    await expect(write(join(path, 'again'), 16)).rejects.toThrow(/EDQUOT|error -122/);
    expect(opened.warnings).toEqual([]);
  });
}

test('without quotas a limit is ignored with one warning, or refused when it is to be enforced', async () => {
  await using disk = await loopFileSystem('btrfs', 256);
  {
    await using opened = await open(disk.path);
    await opened.driver.create(limited('1', '1000000'));
    await opened.driver.create(limited('2', '1000000'));
    await write(join(opened.directoryOf(limited('1', '1000000')), 'file'), 4);
    expect(opened.warnings).toEqual([expect.stringMatching(/quotas are off/)]);
    await expect(opened.driver.create(limited('3', '10M'))).rejects.toMatchObject({
      code: 'InvalidArgument',
      message: expect.stringContaining('"10M"'),
    });
  }
  await using opened = await open(disk.path, { max_size: 'enforce' });
  await expect(opened.driver.create(limited('3', '1000000'))).rejects.toMatchObject({
    code: 'FailedPrecondition',
    message: expect.stringMatching(/quotas are off.*quota = "on"/),
  });
  await opened.driver.create(node('4', 'active'));
});

async function sourceOf(path: string): Promise<string> {
  return (await run('findmnt', ['-n', '-o', 'SOURCE', path])).trim();
}

/** Bytes that `btrfs qgroup show` says a subvolume has to itself. */
async function exclusiveOf(top: string, path: string): Promise<number> {
  await run('btrfs', ['filesystem', 'sync', top]);
  const id = (await run('btrfs', ['inspect-internal', 'rootid', path])).trim();
  const table = await run('btrfs', ['qgroup', 'show', '--raw', top]);
  const [, , exclusive] =
    table
      .split('\n')
      .find((line) => line.startsWith(`0/${id} `))
      ?.split(/\s+/) ?? [];
  return Number(exclusive);
}
