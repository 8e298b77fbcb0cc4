import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { background } from '../src/base/context.ts';
import type { Snapshotter } from '../src/snapshotters/snapshotter.ts';
import { Daemon } from '../test/support/daemon.ts';
import { rootFor } from '../test/support/loop-fs.ts';
import { ownDirectory } from '../test/support/mounts.ts';

const ROUNDS = 100;
const MB = 1_000_000;

/** Median µs of a Prepare on a parent of 10 MB and on one of 1 GB, in turn on one file system in memory. */
export async function measureParentSize(
  snapshotter: string,
): Promise<{ readonly small: number; readonly large: number }> {
  await using root = await rootFor(snapshotter, 'parent-size');
  await using daemon = await Daemon.start({ root: root.path, snapshotter });
  const { client } = daemon;
  const parents = { small: 10, large: 1000 } as const;
  for (const [name, size] of Object.entries(parents)) await layer(client.snapshotter, name, size);
  const times = { small: [] as number[], large: [] as number[] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of ['small', 'large'] as const) {
      const began = performance.now();
      await client.snapshotter.prepare(background, `${name} ${round}`, name, new Map());
      times[name].push((performance.now() - began) * 1000);
    }
  }
  return { small: median(times.small), large: median(times.large) };
}

/** Files of 1 MB each, as many as make up the size. */
async function layer(snapshotter: Snapshotter, name: string, megabytes: number): Promise<void> {
  const key = `${name} key`;
  const directory = ownDirectory(await snapshotter.prepare(background, key, '', new Map()));
  for (let index = 0; index < megabytes; index++) {
    await using file = await open(join(directory, String(index)), 'w');
    await file.writeFile(Buffer.alloc(MB, index + 1));
  }
  await snapshotter.commit(background, name, key, new Map(), '');
}

const median = (values: readonly number[]): number =>
  values.toSorted((one, other) => one - other)[values.length >> 1] ?? Number.NaN;
