import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { loopFileSystem } from '../../../../test/support/loop-fs.ts';
import { background } from '../../../base/context.ts';
import { createFileJobs } from '../file-jobs.ts';

const workerEntry = join(import.meta.dirname, '../../../daemon/worker.ts');
const { signal } = background;

test('a subvolume is walked again only when it was written to, also by what is still in memory', async () => {
  await using disk = await loopFileSystem('btrfs', 256);
  await using jobs = createFileJobs({ workerEntry });
  const { subvolumes } = jobs;
  const directory = join(disk.path, '1');
  const path = join(directory, 'fs');
  await subvolumes.make(disk.path, { directory, path });
  const measure = (knownGeneration: number | undefined) =>
    subvolumes.measure(disk.path, { path, base: undefined, knownGeneration }, signal);
  const first = await measure(undefined);
  expect(first.size).toEqual({ inodes: 1, size: 0 });
  expect(await measure(first.generation)).toMatchObject({ size: undefined });
  await writeFile(join(path, 'file'), Buffer.alloc(8192, 1));
  const second = await measure(first.generation);
  expect(second.size).toEqual({ inodes: 2, size: 8192 });
  expect(await measure(second.generation)).toMatchObject({ size: undefined });
});

test('one subvolume that cannot be made leaves the others of its group alone', async () => {
  await using disk = await loopFileSystem('btrfs', 256);
  await using jobs = createFileJobs({ workerEntry });
  const made = await Promise.allSettled(
    ['1', 'absent/2', '3'].map((id) =>
      jobs.subvolumes.make(disk.path, {
        directory: join(disk.path, id),
        path: join(disk.path, id, 'fs'),
      }),
    ),
  );
  expect(made.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  expect(made[1]).toMatchObject({ reason: { message: expect.stringContaining('absent/2/fs') } });
  expect((await jobs.subvolumes.list(disk.path)).map(({ name }) => name).toSorted()).toEqual([
    '1',
    '3',
  ]);
});

test('a large subvolume is sealed without being measured, which can be done later', async () => {
  await using disk = await loopFileSystem('btrfs', 256);
  await using jobs = createFileJobs({ workerEntry });
  const directory = join(disk.path, '1');
  const path = join(directory, 'fs');
  await jobs.subvolumes.make(disk.path, { directory, path });
  const seal = async (of: string, base: string | undefined): Promise<string> => {
    for (let n = 0; n < 1500; n++) await writeFile(join(of, `in ${of.length}, ${n}`), '');
    const layer = join(dirname(of), 'layer');
    const sealed = await jobs.subvolumes.make(disk.path, {
      directory: dirname(of),
      path: layer,
      from: of,
      readOnly: true,
      measureAgainst: { base },
    });
    expect(sealed.size).toBeUndefined();
    return layer;
  };
  const measure = (of: string, base: string | undefined) =>
    jobs.subvolumes.measureSealed(disk.path, { path: of, base }, signal);
  const layer = await seal(path, undefined);
  expect(await measure(layer, undefined)).toEqual({ inodes: 1501, size: 0 });
  const above = join(disk.path, 'above');
  await jobs.subvolumes.make(disk.path, { directory: above, path: join(above, 'fs'), from: layer });
  const child = await seal(join(above, 'fs'), layer);
  expect(await measure(child, layer)).toEqual({ inodes: 1500, size: 0 });
});
