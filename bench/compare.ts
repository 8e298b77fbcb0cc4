import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loopFileSystem } from '../test/support/loop-fs.ts';
import { shared, SlowDisk } from '../test/support/slow-disk.ts';
import { temporaryFolder } from '../test/support/temporary.ts';
import type { Disk, Measured } from './goals.ts';

export interface Comparison {
  /** A command line with {socket}, {root} and {snapshotter}. */
  readonly ours: string;
  /** As compare.mjs knows it. */
  readonly peer: 'reference' | 'containerd';
  /** The program of the peer, where it is a whole containerd. */
  readonly containerd?: string;
  readonly snapshotter: string;
  readonly work: string;
  readonly rounds: number;
}

const DISK_MB = 6144;

/** Puts a load on both servers, in turn, on a new file system of that kind. */
export async function compareOn(
  disk: Disk,
  fileSystem: 'ext4' | 'btrfs',
  comparison: Comparison,
): Promise<readonly Measured[]> {
  await using mounted =
    disk === 'memory'
      ? await loopFileSystem(fileSystem, DISK_MB)
      : await SlowDisk.up({ sizeMb: DISK_MB, syncUs: 1000, fileSystem });
  return await compareIn(mounted.path, comparison);
}

async function compareIn(
  directory: string,
  { ours, peer, containerd, snapshotter, work, rounds }: Comparison,
): Promise<readonly Measured[]> {
  await using folder = await temporaryFolder('compare');
  const json = join(folder.path, 'result.json');
  const options = { ours, peer, snapshotter, rounds, work, dir: directory, json };
  const child = spawn(
    process.execPath,
    [
      join(shared, 'loadgen/compare.mjs'),
      ...Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]),
    ],
    {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, ...(containerd !== undefined && { CONTAINERD: containerd }) },
    },
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
