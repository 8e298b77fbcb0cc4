// Puts the same load on ballast and on containerd's own code behind gRPC, on a disk that syncs in
// 1 ms and on one in memory, holds the ratios against the goals and writes docs/performance.md.
//
//   npm run bench:service [-- --snapshotter overlayfs|native|btrfs] [--rounds 5] [--quick]
//
// --quick: one round of the short works, nothing written.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { SERVER } from '../test/support/daemon.ts';
import { fileSystemFor, loopFileSystem } from '../test/support/loop-fs.ts';
import { shared, SlowDisk, slowDiskMissing } from '../test/support/slow-disk.ts';
import { repository, temporaryFolder } from '../test/support/temporary.ts';
import { metadataGoalsFor, type Measured } from './goals.ts';
import { measureParentSize } from './parent-size.ts';
import { insertTables, markdown, type Results } from './report.ts';
import { measureWaiting } from './waiting.ts';

const { values: options } = parseArgs({
  options: {
    snapshotter: { type: 'string', default: 'overlayfs' },
    rounds: { type: 'string', default: '5' },
    quick: { type: 'boolean', default: false },
  },
});

const DISK_MB = 6144;
const { snapshotter, quick } = options;
const fileSystem = fileSystemFor(snapshotter);
const rounds = quick ? 1 : Number(options.rounds);
const work = quick ? 'snap,small,info' : 'snap,mixed,small,big,info';
/** Only CPU tells how a call grows with the store. */
const workInMemory = quick ? work : `${work},growth`;
const build = process.env['BUILD'] ?? join(homedir(), '.cache/ballast/conformance');
const reference = `${build}/deb/refserver -socket {socket} -root {root} -snapshotter {snapshotter}`;

interface Comparison {
  readonly directory: string;
  readonly work: string;
  readonly durability: 'full' | 'metadata';
}

async function compare({ directory, work, durability }: Comparison): Promise<readonly Measured[]> {
  await using folder = await temporaryFolder('compare');
  const json = join(folder.path, 'result.json');
  const ours = `${SERVER} --durability ${durability}`;
  const args = ['--ours', ours, '--snapshotter', snapshotter, '--rounds', String(rounds)];
  const child = spawn(
    process.execPath,
    [
      join(shared, 'loadgen/compare.mjs'),
      ...args,
      '--work',
      work,
      '--dir',
      directory,
      '--json',
      json,
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  const [code]: unknown[] = await once(child, 'exit');
  if (code !== 0) throw new Error(`compare.mjs ended with ${String(code)}`);
  const result: unknown = JSON.parse(await readFile(json, 'utf8'));
  if (typeof result !== 'object' || result === null || !('table' in result)) {
    throw new Error('compare.mjs wrote no table');
  }
  if (!Array.isArray(result.table)) throw new Error('compare.mjs wrote no table');
  return result.table.map(measured);
}

function measured(line: unknown): Measured {
  const field = (name: string): unknown =>
    typeof line === 'object' && line !== null ? Reflect.get(line, name) : undefined;
  return {
    work: String(field('work')),
    figure: String(field('figure')),
    ours: Number(field('ours')),
    peer: Number(field('peer')),
    ratio: Number(field('ratio')),
  };
}

async function onSlowDisk(work: string, durability: Comparison['durability']) {
  await using disk = await SlowDisk.up({ sizeMb: DISK_MB, syncUs: 1000, fileSystem });
  return await compare({ directory: disk.path, work, durability });
}

async function inMemory(work: string) {
  await using disk = await loopFileSystem(fileSystem, DISK_MB);
  return await compare({ directory: disk.path, work, durability: 'full' });
}

if (slowDiskMissing) throw new Error(slowDiskMissing);
const say = (text: string): void => void process.stdout.write(`${text}\n`);
say(`${snapshotter}: ${rounds} rounds of ${work}; some minutes`);
let results: Results = {
  snapshotter,
  rounds,
  full: { slow: [], memory: [] },
  metadata: [],
  waiting: [],
};
/** Written after every part, as the next one takes minutes. */
async function add(part: string, more: Partial<Results>): Promise<void> {
  results = { ...results, ...more };
  say(`done: ${part}`);
  if (quick) return;
  const json = JSON.stringify(results, undefined, 1);
  await writeFile(join(repository, `bench/results-${snapshotter}.json`), `${json}\n`);
  const document = join(repository, 'docs/performance.md');
  await writeFile(document, insertTables(await readFile(document, 'utf8'), results));
}

const memory = await inMemory(workInMemory);
await add(`${fileSystem} in memory`, { full: { slow: [], memory } });
const slow = await onSlowDisk(work, 'full');
await add('the disk that syncs in 1 ms', { full: { slow, memory } });
if (metadataGoalsFor(snapshotter).length > 0) {
  await add('durability "metadata"', { metadata: await onSlowDisk('snap', 'metadata') });
}
if (snapshotter === 'btrfs') {
  await add('size of the parent', { parentSize: await measureParentSize(snapshotter) });
}
const tools = { loadgen: `${build}/deb/loadgen`, reference };
await add('waiting', { waiting: await measureWaiting(tools, snapshotter, fileSystem) });
say(markdown(results));
