// The property: whenever the power fails under load, a fresh daemon on what the disk then holds has
// everything that was acknowledged before, byte for byte, shows nothing half-made, and all of it can
// be used and removed. The disk has a volatile cache of which a random, partly torn rest survives.
//
// POWER_CUTS sets the number of cuts per driver, BALLAST_SEED repeats a run (as far as timing allows).
import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Daemon, DRIVERS, type DriverName } from '../support/daemon.ts';
import { fileSystemFor, mountImage } from '../support/loop-fs.ts';
import { numberFromEnv, Random, testSeed } from '../support/random.ts';
import { run } from '../support/run.ts';
import { SlowDisk } from '../support/slow-disk.ts';
import { slowDiskTest } from '../support/slow-disk-test.ts';
import { check, dismantle } from './check.ts';
import { Journal, type CrashWindow } from './journal.ts';
import { Load, makeBaseLayers } from './load.ts';

const CUTS = numberFromEnv('POWER_CUTS', 20);
const LOAD_MS_MAX = 300;
const TORN_MAX = 5;

for (const driver of DRIVERS) {
  slowDiskTest(
    `${driver}: ${CUTS} power cuts under load lose nothing that was acknowledged`,
    async () => {
      const seed = testSeed();
      process.stdout.write(`${driver}: BALLAST_SEED=${seed}\n`);
      const random = new Random(seed);
      await using disk = await SlowDisk.up({ fileSystem: fileSystemFor(driver) });
      await using daemon = await Daemon.start({ root: `${disk.path}/root`, snapshotter: driver });
      const journal = new Journal();
      await makeBaseLayers(daemon.client, journal, random);
      for (let round = 0; round < CUTS; round++) {
        const load = new Load({ client: daemon.client, journal, random, driver, actors: 12 });
        await new Promise((resolve) => setTimeout(resolve, random.below(LOAD_MS_MAX)));
        const issued = journal.tick();
        const image = await cut(disk, driver, random);
        const window = { issued, completed: journal.tick() };
        await load.stop();
        await checkImage(image, driver, journal, window);
        journal.prune();
      }
    },
    60_000 + CUTS * 10_000,
  );
}

/**
 * The cuts tear writes at sectors of 512 bytes; btrfs's superblock has 4 KiB, and a btrfs whose first one
 * is torn mounts for nobody. Such a cut shows nothing of ours, so the next one counts.
 */
async function cut(disk: SlowDisk, driver: DriverName, random: Random): Promise<string> {
  for (let torn = 0; torn < TORN_MAX; torn++) {
    const image = await disk.cut(random.below(2 ** 15));
    if (driver !== 'btrfs') return image;
    const superblock = await run('btrfs', ['inspect-internal', 'dump-super', image]);
    if (/^csum\s.*\[match\]$/m.test(superblock)) return image;
    await rm(dirname(image), { recursive: true });
  }
  throw new Error(`${TORN_MAX} power cuts tore the superblock, one after another`);
}

async function checkImage(
  image: string,
  driver: DriverName,
  journal: Journal,
  window: CrashWindow,
): Promise<void> {
  await using mounted = await mountImage(image);
  await using daemon = await Daemon.start({ root: `${mounted.path}/root`, snapshotter: driver });
  try {
    await check(daemon, journal, window, 'power cut');
    await dismantle(daemon);
  } catch (error) {
    process.stdout.write(`${daemon.stderr.slice(-2000)}\n`);
    throw error;
  }
}
