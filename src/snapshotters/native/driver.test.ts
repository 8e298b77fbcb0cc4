import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { loopFileSystem } from '../../../test/support/loop-fs.ts';
import { temporaryFolder } from '../../../test/support/temporary.ts';
import { background } from '../../base/context.ts';
import { createFileJobs } from '../../platform/jobs/file-jobs.ts';
import { createLinux } from '../../platform/linux/linux.ts';
import type { SnapshotNode } from '../driver.ts';
import type { Kind } from '../snapshotter.ts';
import { native } from './driver.ts';

const workerEntry = join(import.meta.dirname, '../../daemon/worker.ts');
const { signal } = background;
const rebaser = { rebase: async () => undefined };

const node = (id: string, kind: Kind, ...parentIds: string[]): SnapshotNode => ({
  id,
  kind,
  parentIds,
  labels: new Map(),
});

async function open(root: string) {
  const jobs = createFileJobs({ workerEntry });
  const dependencies = { linux: createLinux(), jobs, rebaser, warn: () => undefined };
  const driver = await native.open({ root, durability: 'full', table: {} }, dependencies);
  return {
    driver,
    folder: join(root, 'snapshots'),
    [Symbol.asyncDispose]: () => jobs[Symbol.asyncDispose](),
  };
}

const modeOf = async (path: string) => ((await stat(path)).mode & 0o7777).toString(8);

test('a snapshot is a whole copy that its parent does not share', async () => {
  await using root = await temporaryFolder('native');
  await using opened = await open(join(root.path, 'made/by/open'));
  const { driver, folder } = opened;
  const base = node('1', 'active');
  await driver.create(base);
  await writeFile(join(folder, '1/file'), 'base');
  expect(await driver.seal(base, undefined, signal)).toMatchObject({ usage: { inodes: 2 } });
  const child = node('2', 'active', '1');
  await driver.create(child);
  await writeFile(join(folder, '2/file'), 'changed');
  await writeFile(join(folder, '2/more'), '');
  expect(await readFile(join(folder, '1/file'), 'utf8')).toBe('base');
  expect((await driver.usage(child, signal)).inodes).toBe(3);
  expect((await driver.list()).toSorted()).toEqual(['1', '2']);
  await driver.discard(['1', '2', '77'], signal);
  expect(await driver.list()).toEqual([]);
});

test('folders are private and roots of snapshots are open, whatever the umask', async () => {
  await using root = await temporaryFolder('native-modes');
  await using opened = await open(root.path);
  const { driver, folder } = opened;
  await driver.create(node('1', 'active'));
  await driver.create(node('2', 'view'));
  expect(await modeOf(root.path)).toBe('700');
  expect(await modeOf(folder)).toBe('700');
  expect(await modeOf(join(folder, '1'))).toBe('755');
  expect(await modeOf(join(folder, '2'))).toBe('755');
});

test('mounts are bind mounts, as containerd answers them', async () => {
  await using root = await temporaryFolder('native-mounts');
  await using opened = await open(root.path);
  const { driver, folder } = opened;
  const mounts = (of: SnapshotNode) => driver.mounts(of);
  const bind = (id: string, access: string) => [
    { type: 'bind', source: join(folder, id), options: ['rbind', access] },
  ];
  expect(mounts(node('5', 'active'))).toEqual(bind('5', 'rw'));
  expect(mounts(node('5', 'active', '4', '3'))).toEqual(bind('5', 'rw'));
  expect(mounts(node('5', 'view'))).toEqual(bind('5', 'ro'));
  expect(mounts(node('5', 'view', '4', '3'))).toEqual(bind('4', 'ro'));
});

test('a view of a parent has nothing of its own on disk', async () => {
  await using root = await temporaryFolder('native-view');
  await using opened = await open(root.path);
  const { driver } = opened;
  await driver.create(node('1', 'active'));
  const view = node('2', 'view', '1');
  await driver.create(view);
  expect(driver.keepsDirectory(view)).toBe(false);
  expect(await driver.list()).toEqual(['1']);
});

test('a full disk fails a Prepare with the cause, and what was copied can be removed', async () => {
  await using disk = await loopFileSystem('ext4', 32);
  await using opened = await open(disk.path);
  const { driver, folder } = opened;
  await driver.create(node('1', 'active'));
  await writeFile(join(folder, '1/large'), Buffer.alloc(20 * 2 ** 20, 1));
  await driver.seal(node('1', 'active'), undefined, signal);
  await expect(driver.create(node('2', 'active', '1'))).rejects.toMatchObject({
    code: 'ResourceExhausted',
    message: expect.stringContaining('no space left'),
  });
  await driver.discard(['2'], signal);
  expect(await driver.list()).toEqual(['1']);
  expect((await readdir(join(folder, '1'))).length).toBe(1);
});

test('a root that is a file, and an option that there is not, are named', async () => {
  await using root = await temporaryFolder('native-wrong');
  const file = join(root.path, 'file');
  await writeFile(file, '');
  await expect(open(file)).rejects.toMatchObject({
    code: 'FailedPrecondition',
    message: expect.stringContaining(file),
  });
  expect(() => native.checkConfig({ mount_options: [] })).toThrow(/mount_options.*native/);
  await mkdir(join(root.path, 'fine'));
  expect(() => native.checkConfig({})).not.toThrow();
});
