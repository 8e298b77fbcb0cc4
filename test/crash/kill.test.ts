// The property: however often the daemon is killed at a random moment under load, everything it had
// acknowledged is there afterwards, nothing half-made is visible, all of it can be used and removed,
// and no directory or ingest is left that nothing leads to.
//
// CRASH_ROUNDS sets the number of kills, BALLAST_SEED repeats a run (as far as timing allows).
import { test } from 'vitest';
import { Daemon, DRIVERS } from '../support/daemon.ts';
import { numberFromEnv, Random, testSeed } from '../support/random.ts';
import { rootFor } from '../support/loop-fs.ts';
import { check, dismantle, settle } from './check.ts';
import { Journal } from './journal.ts';
import { Load, makeBaseLayers } from './load.ts';

const ROUNDS = numberFromEnv('CRASH_ROUNDS', 50);
const LOAD_MS_MAX = 400;

for (const driver of DRIVERS) {
  test(
    `${driver}: ${ROUNDS} kills under load lose nothing that was acknowledged`,
    async () => {
      const seed = testSeed();
      process.stdout.write(`${driver}: BALLAST_SEED=${seed}\n`);
      const random = new Random(seed);
      await using folder = await rootFor(driver, 'kill');
      const options = { root: folder.path, snapshotter: driver };
      const journal = new Journal();
      let daemon = await Daemon.start(options);
      let requests = 0;
      try {
        await makeBaseLayers(daemon.client, journal, random);
        for (let round = 0; round < ROUNDS; round++) {
          const load = new Load({ client: daemon.client, journal, random, driver, actors: 12 });
          await new Promise((resolve) => setTimeout(resolve, random.below(LOAD_MS_MAX)));
          load.expectDeath();
          const issued = journal.tick();
          await daemon.stop('SIGKILL');
          await load.stop();
          requests += load.requests;
          if (round % 5 === 4) await dieWhileStarting(options, random);
          await daemon[Symbol.asyncDispose]();
          daemon = await Daemon.start(options);
          const window = { issued, completed: journal.tick() };
          settle(journal, await check(daemon, journal, window, 'killed'));
        }
        await dismantle(daemon);
        process.stdout.write(`${driver}: ${requests} requests in ${ROUNDS} rounds\n`);
      } finally {
        if (daemon.stderr) process.stdout.write(`${daemon.stderr.slice(-2000)}\n`);
        await daemon[Symbol.asyncDispose]();
      }
    },
    ROUNDS * 10_000,
  );
}

/** Recovery itself is cut short. */
async function dieWhileStarting(
  options: Parameters<typeof Daemon.launch>[0],
  random: Random,
): Promise<void> {
  await using daemon = await Daemon.launch(options);
  await new Promise((resolve) => setTimeout(resolve, random.below(300)));
  await daemon.stop('SIGKILL');
}
