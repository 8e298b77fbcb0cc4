// Puts the same load on ballast and on containerd's own code behind gRPC, on a disk that syncs in
// 1 ms and on one in memory, holds the ratios against the goals and writes docs/performance.md.
//
//   npm run bench:service [-- --snapshotter overlayfs|native|btrfs] [--rounds 5] [--quick]
//   npm run bench:service -- --peer containerd [--work snap,mixed,small,meta] [--rounds 3] [--quick]
//
// With --peer containerd: the standalone socket beside that of a whole containerd 2.x.
// --quick: one round of the short works, nothing written.
import { readFile, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { SERVER } from '../test/support/daemon.ts';
import { fileSystemFor } from '../test/support/loop-fs.ts';
import { slowDiskMissing } from '../test/support/slow-disk.ts';
import { repository } from '../test/support/temporary.ts';
import { besideContainerd } from './beside-containerd.ts';
import { compareOn } from './compare.ts';
import { metadataGoalsFor, type Disk, type Measured } from './goals.ts';
import { measureParentSize } from './parent-size.ts';
import { insertTables, markdown, type Results } from './report.ts';
import { measureWaiting } from './waiting.ts';

const { values: options } = parseArgs({
  options: {
    peer: { type: 'string', default: 'reference' },
    snapshotter: { type: 'string', default: 'overlayfs' },
    work: { type: 'string' },
    rounds: { type: 'string' },
    quick: { type: 'boolean', default: false },
  },
});

const { snapshotter, quick } = options;
const fileSystem = fileSystemFor(snapshotter);
const say = (text: string): void => void process.stdout.write(`${text}\n`);

async function besideReference(rounds: number): Promise<void> {
  const work = options.work ?? (quick ? 'snap,small,info' : 'snap,mixed,small,big,info');
  /** Only CPU tells how a call grows with the store. */
  const workInMemory = quick ? work : `${work},growth`;
  const build = process.env['BUILD'] ?? join(homedir(), '.cache/ballast/conformance');
  const reference = `${build}/deb/refserver -socket {socket} -root {root} -snapshotter {snapshotter}`;
  const compare = (
    disk: Disk,
    load: string,
    durability: 'full' | 'metadata',
  ): Promise<readonly Measured[]> =>
    compareOn(disk, fileSystem, {
      ours: `${SERVER} --durability ${durability}`,
      peer: 'reference',
      snapshotter,
      work: load,
      rounds,
    });

  say(`${snapshotter}: ${rounds} rounds of ${work}; some minutes`);
  let results: Results = {
    snapshotter,
    rounds,
    full: { slow: [], memory: [] },
    metadata: [],
    waiting: [],
  };
  /** Written after every part, as the next one takes minutes. */
  const add = async (part: string, more: Partial<Results>): Promise<void> => {
    results = { ...results, ...more };
    say(`done: ${part}`);
    if (quick) return;
    const json = JSON.stringify(results, undefined, 1);
    await writeFile(join(repository, `bench/results-${snapshotter}.json`), `${json}\n`);
    const document = join(repository, 'docs/performance.md');
    await writeFile(document, insertTables(await readFile(document, 'utf8'), results));
  };

  const memory = await compare('memory', workInMemory, 'full');
  await add(`${fileSystem} in memory`, { full: { slow: [], memory } });
  const slow = await compare('slow', work, 'full');
  await add('the disk that syncs in 1 ms', { full: { slow, memory } });
  if (metadataGoalsFor(snapshotter).length > 0) {
    await add('durability "metadata"', { metadata: await compare('slow', 'snap', 'metadata') });
  }
  if (snapshotter === 'btrfs') {
    await add('size of the parent', { parentSize: await measureParentSize(snapshotter) });
  }
  const tools = { loadgen: `${build}/deb/loadgen`, reference };
  await add('waiting', { waiting: await measureWaiting(tools, snapshotter, fileSystem) });
  say(markdown(results));
}

if (slowDiskMissing) throw new Error(slowDiskMissing);
if (options.peer === 'containerd') {
  await besideContainerd({
    snapshotter,
    work: options.work ?? 'snap,mixed,small,meta',
    rounds: quick ? 1 : Number(options.rounds ?? 3),
    quick,
    say,
  });
} else {
  await besideReference(quick ? 1 : Number(options.rounds ?? 5));
}
