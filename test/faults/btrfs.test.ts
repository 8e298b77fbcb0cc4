// What the btrfs driver does with roots that it can't use, and with subvolumes and records that have
// lost each other.
import assert from 'node:assert/strict';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { refuses } from '../contract/suite.ts';
import { collect } from '../support/collect.ts';
import { Daemon } from '../support/daemon.ts';
import { loopFileSystem } from '../support/loop-fs.ts';
import { run } from '../support/run.ts';
import { assertOneClearLine } from './clear-line.ts';

const snapshotter = 'btrfs';
const none: ReadonlyMap<string, string> = new Map();

test('a root that is not on btrfs is refused in one line, and taken once one is mounted there', async () => {
  await using ext4 = await loopFileSystem('ext4', 64);
  await using disk = await loopFileSystem('btrfs', 256);
  const options = { root: join(ext4.path, 'root'), snapshotter };
  {
    await using daemon = await Daemon.launch(options);
    const exit = await daemon.ended();
    assert.equal(exit.code, 1);
    assertOneClearLine(daemon.stderr, /is on ext4, not on btrfs: .*mkfs\.btrfs/);
  }
  const point = join(options.root, 'snapshotters/ballast-btrfs');
  await mkdir(point, { recursive: true });
  await run('mount', ['--bind', disk.path, point]);
  try {
    await using daemon = await Daemon.start(options);
    await daemon.client.snapshotter.prepare(background, 'key', '', none);
    await daemon.stop('SIGTERM');
  } finally {
    await run('umount', [point]);
  }
});

test('a record without a subvolume is told of by name and removable; a subvolume without a record goes', async () => {
  await using disk = await loopFileSystem('btrfs', 256);
  const options = { root: disk.path, snapshotter };
  const snapshots = join(disk.path, 'snapshotters/ballast-btrfs/snapshots');
  {
    await using daemon = await Daemon.start(options);
    const s = daemon.client.snapshotter;
    await s.prepare(background, 'key', '', none);
    await s.commit(background, 'lost layer', 'key', none, '');
    await s.prepare(background, 'child', 'lost layer', none);
    await daemon.stop('SIGTERM');
  }
  await run('btrfs', ['subvolume', 'delete', join(snapshots, '1/layer')]);
  await mkdir(join(snapshots, '77'));
  await run('btrfs', ['subvolume', 'create', join(snapshots, '77/fs')]);

  await using daemon = await Daemon.start(options);
  const s = daemon.client.snapshotter;
  await s.cleanup(background);
  assert.deepEqual((await readdir(snapshots)).toSorted(), ['1', '2']);
  assert.match(
    daemon.stderr,
    /"warn".*lost its directory.*"lost layer"|"lost layer".*lost its directory/,
  );
  const listed = await collect(s.walk(background, []));
  assert.deepEqual(listed.map(({ name }) => name).toSorted(), ['child', 'lost layer']);
  await refuses('FailedPrecondition', s.prepare(background, 'no', 'lost layer', none), /1\/layer/);
  assert.equal((await s.mounts(background, 'child')).length, 1);
  await s.remove(background, 'child');
  await s.remove(background, 'lost layer');
  await s.cleanup(background);
  assert.deepEqual(await readdir(snapshots), []);
});
