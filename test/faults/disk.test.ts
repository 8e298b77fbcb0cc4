// What a broken or hanging disk does to the daemon: it stops when a sync failed, it goes on answering
// from memory while the disk hangs, and it asks the disk for no more than it must.
import assert from 'node:assert/strict';
import { background, type RequestContext } from '../../src/base/context.ts';
import type { Digest } from '../../src/base/digest.ts';
import { isOpError } from '../../src/base/errors.ts';
import type { Client } from '../support/client.ts';
import { collect } from '../support/collect.ts';
import { Daemon, DRIVERS, type DriverName } from '../support/daemon.ts';
import { Random, testSeed } from '../support/random.ts';
import { fileSystemFor } from '../support/loop-fs.ts';
import { PATIENCE_MS, within } from '../support/patience.ts';
import { slowDiskTest } from '../support/slow-disk-test.ts';
import { SlowDisk } from '../support/slow-disk.ts';
import { check } from '../crash/check.ts';
import { Journal } from '../crash/journal.ts';
import { Load, makeBaseLayers } from '../crash/load.ts';
import { assertOneClearLine } from './clear-line.ts';

const ACTORS = 12;
/** What is answered from memory has this long, however the disk hangs; the machine may be busy. */
const ANSWER_MS = 2000;
/** So often each is asked while the disk hangs. */
const ROUNDS = 100;

for (const driver of DRIVERS) {
  slowDiskTest(
    `${driver}: a failed sync stops the daemon, and what it acknowledged is there on the healed disk`,
    () =>
      acknowledgedSurvives(driver, async (daemon, disk, load) => {
        await disk.set({ sync_errno: 5 });
        const exit = await daemon.ended();
        await load.stop();
        assert.equal(exit.signal, null);
        assert.notEqual(exit.code, 0);
        // The file system may fail first: then it is read-only when our own sync comes.
        assertOneClearLine(daemon.stderr, /EIO|input\/output error|EROFS|read-only/i);
      }),
    120_000,
  );

  slowDiskTest(
    `${driver}: a device without room below the file system loses nothing that was acknowledged`,
    () =>
      acknowledgedSurvives(driver, async (daemon, disk, load) => {
        await disk.set({ write_errno: 28 });
        await within(PATIENCE_MS, 'a refusal', load.failed());
        await load.stop();
        for (const error of load.refusals.filter((error) => isOpError(error))) {
          // The file system may give up: then the daemon stops, or its answer says so. btrfs says EIO
          // to the call whose transaction it could not commit, and EROFS to whatever comes behind it.
          const gaveUp = error.code === 'Unavailable' || /EROFS|EIO/.test(error.message);
          assert.ok(
            error.code === 'ResourceExhausted' || gaveUp,
            `${error.code}: ${error.message}`,
          );
        }
        const exit = await daemon.stop('SIGKILL');
        if (exit.signal === null)
          assertOneClearLine(daemon.stderr, /no space|read-only|input.output|ENOSPC|EROFS|EIO/i);
      }),
    120_000,
  );

  for (const hang of ['sync', 'write'] as const) {
    slowDiskTest(
      `${driver}: while the disk hangs at ${hang}, memory answers; afterwards everything goes on`,
      () => whileHanging(driver, hang),
      120_000,
    );
  }

  slowDiskTest(
    `${driver}: 64 Prepares sent together reach the disk as at most 6 syncs`,
    async () => {
      await using disk = await SlowDisk.up({ syncUs: 1000, fileSystem: fileSystemFor(driver) });
      await using daemon = await Daemon.start({ root: `${disk.path}/root`, snapshotter: driver });
      const { snapshotter } = daemon.client;
      const prepare64 = (round: string) =>
        Promise.all(
          Array.from({ length: 64 }, (_, index) =>
            snapshotter.prepare(background, `${round} ${index}`, '', new Map()),
          ),
        );
      await prepare64('first');
      await prepare64('second');
      const before = await disk.counts();
      await prepare64('third');
      const after = await disk.counts();
      assert.ok(after.sync - before.sync <= 6, `${after.sync - before.sync} syncs`);
    },
    120_000,
  );
}

/** Breaks the disk under load, heals it, and looks whether a new daemon has all that was acknowledged. */
async function acknowledgedSurvives(
  driver: DriverName,
  breakDisk: (daemon: Daemon, disk: SlowDisk, load: Load) => Promise<void>,
): Promise<void> {
  await using disk = await SlowDisk.up({ fileSystem: fileSystemFor(driver) });
  const options = { root: `${disk.path}/root`, snapshotter: driver };
  const random = new Random(testSeed());
  const journal = new Journal();
  let issued: number;
  {
    await using daemon = await Daemon.start(options);
    await makeBaseLayers(daemon.client, journal, random);
    const load = new Load({ client: daemon.client, journal, random, driver, actors: ACTORS });
    await load.reached(150);
    load.expectDeath({ keepGoing: true });
    issued = journal.tick();
    await breakDisk(daemon, disk, load);
  }
  await disk.heal();
  await disk.remount();
  await using daemon = await Daemon.start(options);
  await check(daemon, journal, { issued, completed: journal.tick() }, 'power cut');
}

async function whileHanging(driver: DriverName, hang: 'sync' | 'write'): Promise<void> {
  await using disk = await SlowDisk.up({ fileSystem: fileSystemFor(driver) });
  await using daemon = await Daemon.start({ root: `${disk.path}/root`, snapshotter: driver });
  // Whatever fails below: a process that waits for the disk can't be killed before it is released.
  await using released = { [Symbol.asyncDispose]: () => disk.heal() };
  const random = new Random(testSeed());
  const journal = new Journal();
  await makeBaseLayers(daemon.client, journal, random);
  const things = await makeThings(daemon.client);
  const load = new Load({ client: daemon.client, journal, random, driver, actors: ACTORS });
  await load.reached(100);
  await using other = daemon.connect();
  await answersFromMemory(other, things);
  await disk.set({ hang });
  for (let round = 0; round < ROUNDS; round++) await answersFromMemory(other, things);
  const stuckAt = load.requests;
  await answersFromMemory(other, things);
  assert.ok(load.requests - stuckAt <= ACTORS, 'the disk did hang');
  await disk.heal();
  await load.reached(stuckAt + 100);
  await load.stop();
  await removeThings(daemon.client, things);
  await check(daemon, journal, { issued: journal.tick(), completed: journal.tick() }, 'killed');
  assert.ok(released);
}

interface Things {
  readonly active: string;
  readonly committed: string;
  readonly manifest: Digest;
}

async function makeThings({ snapshotter, content }: Client): Promise<Things> {
  await snapshotter.prepare(background, 'to be committed', '', new Map());
  await snapshotter.commit(background, 'committed', 'to be committed', new Map(), '');
  await snapshotter.prepare(background, 'active', 'committed', new Map());
  await using writer = await content.writer(background, 'manifest', {});
  await writer.write(0, Buffer.from('{"schemaVersion":2}'));
  const manifest = await writer.commit(new Map());
  return { active: 'active', committed: 'committed', manifest };
}

async function removeThings({ snapshotter, content }: Client, things: Things): Promise<void> {
  await snapshotter.remove(background, things.active);
  await snapshotter.remove(background, things.committed);
  await content.delete(background, things.manifest);
}

/** Each of these touches memory only. */
async function answersFromMemory(client: Client, things: Things): Promise<void> {
  const { snapshotter, content } = client;
  const calls: Record<string, (ctx: RequestContext) => Promise<unknown>> = {
    Stat: (ctx) => snapshotter.stat(ctx, things.committed),
    Mounts: (ctx) => snapshotter.mounts(ctx, things.active),
    'Usage of a committed snapshot': (ctx) => snapshotter.usage(ctx, things.committed),
    Info: (ctx) => content.info(ctx, things.manifest),
    'Read of a manifest': (ctx) => collect(content.read(ctx, things.manifest, 0, 0)),
    Health: () => client.serving().then((serving) => assert.ok(serving)),
  };
  await Promise.all(
    Object.entries(calls).map(async ([name, call]) => {
      const late = AbortSignal.timeout(ANSWER_MS);
      await within(ANSWER_MS, name, call({ ...background, signal: late }));
    }),
  );
}
