// btrfs: what snapshots share counts once, so that du(1) is no measure; the file system's own count is.
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { NO_LABELS } from '../../src/base/labels.ts';
import { Daemon } from '../support/daemon.ts';
import { allocatedIn, usageOf } from '../support/disk-use.ts';
import { loopFileSystem } from '../support/loop-fs.ts';
import { ownDirectory } from '../support/mounts.ts';
import { bytesOf } from '../support/random.ts';
import { run } from '../support/run.ts';
import { repository, temporaryFolder } from '../support/temporary.ts';
import { COLLECT_NOTHING, inside } from './client.ts';

const here = inside('here');

test('snapshots on btrfs take what the file system has given out for data', async () => {
  await using disk = await loopFileSystem('btrfs', 512);
  await using folder = await temporaryFolder('du');
  const root = join(folder.path, 'root');
  const config = join(folder.path, 'ballast.toml');
  const socket = join(folder.path, 'alone.sock');
  const snapshotters = join(disk.path, 'snapshots');
  await writeFile(
    config,
    `root = "${root}"
[standalone]
socket = "${socket}"
[gc]
${COLLECT_NOTHING}
[snapshotter.btrfs]
driver = "btrfs"
root = "${snapshotters}"
`,
  );
  await using daemon = await Daemon.start({
    root,
    socket,
    snapshotter: 'btrfs',
    command: `${join(repository, 'bin/ballast')} serve --config ${config}`,
  });
  const { snapshotter } = daemon.client;
  const prepare = async (key: string, parent: string): Promise<string> =>
    ownDirectory(await snapshotter.prepare(here, key, parent, NO_LABELS));
  const base = await prepare('base-key', '');
  await mkdir(join(base, 'deep'));
  for (const [seed, name] of ['stays', 'is-replaced', 'deep/is-removed'].entries()) {
    await writeFile(join(base, name), bytesOf(seed, 1_000_000 * (seed + 1)));
  }
  await snapshotter.commit(here, 'base', 'base-key', NO_LABELS, '');
  const child = await prepare('child', 'base');
  await rm(join(child, 'deep/is-removed'));
  await rm(join(child, 'is-replaced'));
  await writeFile(join(child, 'is-replaced'), bytesOf(7, 500_000));
  await snapshotter.view(here, 'view', 'base', NO_LABELS);

  const { roots, parts, total, snapshots } = await usageOf(socket);
  expect(roots).toEqual([root, snapshotters]);
  const usages = await Promise.all(snapshots.map(({ key }) => snapshotter.usage(here, key)));
  expect(snapshots.map(({ bytes }) => bytes)).toEqual(usages.map(({ size }) => size));
  const part = parts.find(({ type }) => type === 'snapshots/btrfs');
  await snapshotter.cleanup(here);
  await run('sync', ['-f', disk.path]);
  const counted = await run('btrfs', ['filesystem', 'df', '--raw', disk.path]);
  expect(part?.bytes).toBe(Number(/^Data.*used=(?<used>\d+)$/m.exec(counted)?.groups?.['used']));
  // The rest is as elsewhere; the only file beside the snapshots says whose they are.
  const beside = await allocatedIn([root, join(snapshotters, 'ballast.json')]);
  expect(total).toBe((part?.bytes ?? 0) + beside);
});
