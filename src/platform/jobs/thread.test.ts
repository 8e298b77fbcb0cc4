import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../../../test/support/temporary.ts';
import { Thread } from './thread.ts';

test('a thread that dies fails the jobs it had, and the next one finds a new thread', async () => {
  await using folder = await temporaryFolder('thread');
  const entry = join(folder.path, 'entry.mjs');
  await writeFile(
    entry,
    `export function runJob({ input }) {
      if (input.path === 'die') process.exit(7);
      return { output: { inodes: process.pid } };
    }`,
  );
  const thread = new Thread(entry);
  const job = (path: string) =>
    thread.run('measureTree', { path, cancel: new Int32Array(new SharedArrayBuffer(4)) });
  expect(await job('live')).toEqual({ inodes: process.pid });
  const [died, behind] = await Promise.allSettled([job('die'), job('live')]);
  expect(died.status).toBe('rejected');
  expect(behind.status).toBe('rejected');
  expect(await job('live')).toEqual({ inodes: process.pid });
  await thread.close();
});

test('a worker entry that is not there fails the job', async () => {
  const thread = new Thread('/nowhere/worker.mjs');
  const cancel = new Int32Array(new SharedArrayBuffer(4));
  await expect(thread.run('measureTree', { path: '/', cancel })).rejects.toThrow(/nowhere/);
  await thread.close();
});
