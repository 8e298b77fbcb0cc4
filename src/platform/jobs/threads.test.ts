import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { run } from '../../../test/support/run.ts';
import { temporaryFolder } from '../../../test/support/temporary.ts';
import { Threads } from './threads.ts';

test('a job takes the thread that comes free while a new one is still loading', async () => {
  await using folder = await temporaryFolder('threads');
  const [entry, fifo] = [join(folder.path, 'entry.mjs'), join(folder.path, 'fifo')];
  await run('mkfifo', [fifo]);
  // The second thread loads until the other end of the pipe is closed; a job lasts until its flag is not 0.
  await writeFile(
    entry,
    `import { existsSync, readFileSync, writeFileSync } from 'node:fs';
    if (existsSync(${JSON.stringify(`${entry}.first`)})) readFileSync(${JSON.stringify(fifo)});
    else writeFileSync(${JSON.stringify(`${entry}.first`)}, '');
    export function runJob({ input }) {
      Atomics.wait(input.cancel, 0, 0);
      return { output: { inodes: 1 } };
    }`,
  );
  await using threads = new Threads({ entry, idleMs: 1000 });
  const job = (cancel: Int32Array<SharedArrayBuffer>) =>
    threads.use((thread) => thread.run('measureTree', { path: '/', cancel }));
  const flag = (value: number) => {
    const cancel = new Int32Array(new SharedArrayBuffer(4));
    cancel[0] = value;
    return cancel;
  };
  await job(flag(1));
  const ending = flag(0);
  const first = job(ending);
  const second = job(flag(1));
  // Opens when the new thread reads.
  const pipe = await open(fifo, 'w');
  try {
    Atomics.store(ending, 0, 1);
    Atomics.notify(ending, 0);
    expect(await first).toEqual({ inodes: 1 });
    expect(await second).toEqual({ inodes: 1 });
  } finally {
    await pipe.close();
  }
});
