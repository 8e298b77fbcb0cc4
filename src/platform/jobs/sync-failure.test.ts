import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { slowDiskTest } from '../../../test/support/slow-disk-test.ts';
import { SlowDisk } from '../../../test/support/slow-disk.ts';
import { background } from '../../base/context.ts';
import { SyncFailure } from '../../base/errors.ts';
import type { FileJobs } from '../platform.ts';
import { createFileJobs } from './file-jobs.ts';

const workerEntry = join(import.meta.dirname, '../../daemon/worker.ts');
const EIO = 5;

/** Each writes something and then asks for it to be on disk. */
const kinds: Readonly<Record<string, (jobs: FileJobs, root: string) => Promise<unknown>>> = {
  'sealing a tree': async (jobs, root) => {
    await mkdir(join(root, 'tree'));
    await writeFile(join(root, 'tree/file'), 'bytes');
    return jobs.sealTree({ path: join(root, 'tree') }, root, true, background.signal);
  },
  'sealing many trees': async (jobs, root) => {
    const paths = [...Array(20).keys()].map((n) => join(root, `tree-${n}`));
    for (const path of paths) await mkdir(path);
    for (const path of paths) await writeFile(join(path, 'file'), 'bytes');
    const { signal } = background;
    return Promise.all(paths.map((path) => jobs.sealTree({ path }, root, true, signal)));
  },
  'placing a blob': (jobs, root) => placing(jobs, root, 1),
  'placing many blobs': (jobs, root) => placing(jobs, root, 20),
  'syncing an ingest': async (jobs, root) => {
    const { file } = await jobs.openHashedFile(join(root, 'ingest'), ['sha256']);
    await using opened = file;
    await opened.append(Buffer.from('bytes'));
    await opened.sync();
  },
};

function placing(jobs: FileJobs, root: string, count: number): Promise<unknown> {
  const blobs = Array.from({ length: count }, (_, n) =>
    jobs.placeBlob(
      {
        source: Buffer.from('bytes'),
        target: join(root, `blob-${n}`),
        temporary: join(root, `temporary-${n}`),
      },
      { sync: true },
    ),
  );
  return Promise.all(blobs);
}

for (const [kind, act] of Object.entries(kinds)) {
  slowDiskTest(
    `${kind} on a disk that fails its syncs is the failure that stops the daemon`,
    async () => {
      await using disk = await SlowDisk.up({ sizeMb: 64 });
      await using jobs = createFileJobs({ workerEntry });
      await disk.set({ sync_errno: EIO });
      await expect(act(jobs, disk.path)).rejects.toBeInstanceOf(SyncFailure);
    },
    60_000,
  );
}
