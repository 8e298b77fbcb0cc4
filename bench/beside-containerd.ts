import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cache } from '../test/interop/containerd.ts';
import { fileSystemFor } from '../test/support/loop-fs.ts';
import { run } from '../test/support/run.ts';
import { repository } from '../test/support/temporary.ts';
import { compareOn } from './compare.ts';
import type { Disk, Measured } from './goals.ts';
import { insertBetween, markdownBesideContainerd } from './report.ts';

interface Options {
  readonly snapshotter: string;
  readonly work: string;
  readonly rounds: number;
  /** Nothing is written. */
  readonly quick: boolean;
  readonly say: (text: string) => void;
}

/** The standalone socket beside containerd's own; both collect as they do by default. */
export async function besideContainerd(options: Options): Promise<void> {
  const { snapshotter, work, rounds, quick, say } = options;
  const release = '2.x';
  await run(join(repository, 'scripts/fetch-containerd'), [release]);
  const tables: Record<Disk, readonly Measured[]> = { slow: [], memory: [] };
  for (const disk of ['memory', 'slow'] as const) {
    tables[disk] = await compareOn(disk, fileSystemFor(snapshotter), {
      ours: `${join(repository, 'bin/ballast')} serve --standalone {socket} --root {root} --snapshotter {snapshotter}`,
      peer: 'containerd',
      containerd: join(cache, 'containerd', release, 'usr/bin/containerd'),
      snapshotter,
      work,
      rounds,
    });
    say(`done: ${disk}`);
  }
  const text = markdownBesideContainerd(rounds, tables);
  say(text);
  if (quick) return;
  const json = JSON.stringify({ rounds, ...tables }, undefined, 1);
  await writeFile(join(repository, 'bench/results-containerd.json'), `${json}\n`);
  const document = join(repository, 'docs/performance.md');
  await writeFile(document, insertBetween(await readFile(document, 'utf8'), 'containerd', text));
}
