// A file in many pieces takes more than its bytes: the file system has to keep where they are.
import { rmSync, writeFileSync } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { NO_LABELS } from '../../src/base/labels.ts';
import { expectTruth } from '../support/disk-use.ts';
import { loopFileSystem } from '../support/loop-fs.ts';
import { ownDirectory } from '../support/mounts.ts';
import { bytesOf } from '../support/random.ts';
import { run } from '../support/run.ts';
import { inside, startAlone } from './client.ts';

const here = inside('here');
const BYTES = 1_000_000;

test('blobs and committed snapshots in pieces count with what that takes, also after a restart', async () => {
  await using disk = await loopFileSystem('ext4', 96, ['-b', '4096']);
  let daemon = await startAlone(join(disk.path, 'root'));
  try {
    await leaveHoles(join(disk.path, 'filler'));
    const { content, snapshotter } = daemon.client;
    {
      await using writer = await content.writer(here, 'ref', {});
      await writer.write(0, Uint8Array.from(bytesOf(1, BYTES)));
      await writer.commit(NO_LABELS);
    }
    const tree = ownDirectory(await snapshotter.prepare(here, 'key', '', NO_LABELS));
    {
      await using file = await open(join(tree, 'file'), 'w');
      await file.write(bytesOf(2, BYTES));
    }
    await snapshotter.commit(here, 'name', 'key', NO_LABELS, '');
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      const { parts, snapshots } = await expectTruth(daemon.socket);
      const blobs = parts.find(({ type }) => type === 'content')?.bytes ?? 0;
      for (const bytes of [blobs, snapshots[0]?.bytes ?? 0]) {
        expect(bytes).toBeGreaterThan(Math.ceil(BYTES / 4096) * 4096);
      }
      daemon = await daemon.restart(signal);
    }
  } finally {
    await daemon[Symbol.asyncDispose]();
  }
});

/** What is free then is free in pieces of a block. */
async function leaveHoles(folder: string): Promise<void> {
  await mkdir(folder);
  const block = Buffer.alloc(4096, 'x');
  const files: string[] = [];
  try {
    for (;;) {
      const file = join(folder, String(files.length));
      writeFileSync(file, block);
      files.push(file);
    }
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error;
  }
  await run('sync', ['-f', folder]);
  for (const [at, file] of files.entries()) if (at % 2 === 0) rmSync(file);
  await run('sync', ['-f', folder]);
}
