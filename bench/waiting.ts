import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { SERVER, Daemon } from '../test/support/daemon.ts';
import { run } from '../test/support/run.ts';
import { SlowDisk } from '../test/support/slow-disk.ts';
import type { Waiting } from './report.ts';

export interface Tools {
  readonly loadgen: string;
  /** The reference's command line, with {socket}, {root} and {snapshotter}. */
  readonly reference: string;
}

/** How long Info takes at one client: alone, beside big ingests, and while a disk hangs under load. */
export async function measureWaiting(
  { loadgen, reference }: Tools,
  snapshotter: string,
  fileSystem: 'ext4' | 'btrfs',
): Promise<readonly Waiting[]> {
  const results: Waiting[] = [];
  for (const [server, command] of [
    ['ours', SERVER],
    ['peer', reference],
  ] as const) {
    await using disk = await SlowDisk.up({ syncUs: 1000, fileSystem });
    await using daemon = await Daemon.start({ root: `${disk.path}/root`, snapshotter, command });
    await using released = { [Symbol.asyncDispose]: () => disk.heal() };
    const flags = (command: string, more: string): string[] => [
      command,
      '-addr',
      daemon.socket,
      '-sn',
      snapshotter,
      '-root-label=false',
      ...more.split(' '),
    ];
    const info = async (during: string): Promise<void> => {
      const text = await within10s(loadgen, flags('content-info', '-n 3000 -conc 1 -blobs 100'));
      results.push({ during, server, ...figures(text) });
    };
    await run(loadgen, flags('content-write', '-n 100 -conc 4 -size 4096'));
    await info('nothing else happens');
    const ingests = spawn(loadgen, flags('content-write', '-n 40 -conc 4 -size 67108864 -seed 7'), {
      stdio: 'ignore',
    });
    await info('4 blobs of 64 MiB are written');
    await end(ingests);
    const work = spawn(loadgen, flags('snap', '-n 20000 -conc 32 -depth 5'), { stdio: 'ignore' });
    await info('32 clients make snapshots');
    await disk.set({ hang: 'sync' });
    await info('the disk hangs under 32 clients');
    await disk.heal();
    await end(work);
    if (!released) throw new Error('unreachable');
  }
  return results;
}

async function end(load: ChildProcess): Promise<void> {
  if (load.exitCode !== null) return;
  load.kill('SIGKILL');
  await once(load, 'exit');
}

/** What never answers is told as nothing. */
async function within10s(program: string, args: readonly string[]): Promise<string> {
  try {
    return await run('timeout', ['10', program, ...args]);
  } catch {
    return '{}';
  }
}

function figures(text: string): Pick<Waiting, 'opsPerSecond' | 'p50Us' | 'p99Us'> {
  const value: unknown = JSON.parse(text.trim().split('\n').at(-1) ?? '{}');
  const field = (name: string): number => {
    const found: unknown =
      typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
    return typeof found === 'number' ? found : Number.NaN;
  };
  return { opsPerSecond: field('ops_s'), p50Us: field('p50_us'), p99Us: field('p99_us') };
}
