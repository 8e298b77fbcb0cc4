// What a job has brought to the disk is there when the power fails the moment after it resolved.
import { link, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { mountImage } from '../../../test/support/loop-fs.ts';
import { slowDiskTest } from '../../../test/support/slow-disk-test.ts';
import { SlowDisk } from '../../../test/support/slow-disk.ts';
import { background } from '../../base/context.ts';
import type { FileJobs } from '../platform.ts';
import { createFileJobs } from './file-jobs.ts';

const workerEntry = join(import.meta.dirname, '../../daemon/worker.ts');
const { signal } = background;

/** Trees that reach the disk in different ways: file by file, or by a flush of the file system. */
const trees: Readonly<Record<string, (root: string) => Promise<void>>> = {
  empty: async () => undefined,
  'one file': (root) => writeFile(join(root, 'file'), 'one file'),
  'one file, deep': async (root) => {
    await mkdir(join(root, 'a/b/c'), { recursive: true });
    await writeFile(join(root, 'a/b/c/file'), 'deep');
  },
  'several files': async (root) => {
    for (let n = 0; n < 5; n++) await writeFile(join(root, `file-${n}`), String(n).repeat(5000));
  },
  links: async (root) => {
    await writeFile(join(root, 'file'), 'linked');
    await link(join(root, 'file'), join(root, 'again'));
    await symlink('file', join(root, 'symlink'));
  },
};

async function contentsOf(root: string): Promise<Readonly<Record<string, string>>> {
  const contents: Record<string, string> = {};
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    contents[path.slice(root.length)] = entry.isDirectory() ? '' : await readFile(path, 'utf8');
  }
  return contents;
}

/** Does `act`, cuts the power, and answers what a machine that starts anew finds below `path`. */
async function afterCut(
  fileSystem: 'ext4' | 'btrfs' | 'xfs',
  act: (jobs: FileJobs, root: string) => Promise<string>,
): Promise<{ before: unknown; after: unknown }> {
  let image: string;
  let below: string;
  let before: unknown;
  {
    await using disk = await SlowDisk.up({ sizeMb: 320, fileSystem });
    await using jobs = createFileJobs({ workerEntry });
    const path = await act(jobs, disk.path);
    image = await disk.cut(1);
    before = await contentsOf(path);
    below = path.slice(disk.path.length);
  }
  // Only now: two file systems of one UUID cannot be mounted side by side.
  await using survivor = await mountImage(image);
  return { before, after: await contentsOf(join(survivor.path, below)) };
}

for (const fileSystem of ['ext4', 'btrfs', 'xfs'] as const) {
  for (const [shape, fill] of Object.entries(trees)) {
    slowDiskTest(
      `a sealed tree (${shape}) survives a power cut on ${fileSystem}`,
      async () => {
        const { before, after } = await afterCut(fileSystem, async (jobs, root) => {
          const snapshots = join(root, 'snapshots');
          await jobs.makeDirectories([{ path: snapshots, mode: 0o700 }]);
          const tree = join(snapshots, '1/fs');
          await jobs.makeDirectories([
            { path: join(snapshots, '1'), mode: 0o700 },
            { path: tree, mode: 0o755 },
          ]);
          await fill(tree);
          await jobs.sealTree({ path: tree }, snapshots, true, signal);
          return join(snapshots, '1');
        });
        expect(after).toEqual(before);
        expect(after).toHaveProperty(['/fs']);
      },
      60_000,
    );
  }
  slowDiskTest(
    `placed blobs survive a power cut on ${fileSystem}, alone and in groups`,
    async () => {
      const { before, after } = await afterCut(fileSystem, async (jobs, root) => {
        const blobs = join(root, 'blobs');
        await jobs.makeDirectories([{ path: blobs, mode: 0o700 }]);
        await jobs.syncFileSystem(root);
        const place = (name: string) =>
          jobs.placeBlob(
            {
              source: Buffer.from(`bytes of ${name}`),
              target: join(blobs, name),
              temporary: join(root, `temporary-${name}`),
            },
            { sync: true },
          );
        await place('alone');
        await Promise.all([...Array(9).keys()].map((n) => place(`group-${n}`)));
        return blobs;
      });
      expect(after).toEqual(before);
      expect(Object.keys(Object(after))).toHaveLength(10);
    },
    60_000,
  );
}
