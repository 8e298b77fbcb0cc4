// Clients that make, lease, refer and take away, while collections run: nothing that is kept is lost, and all
// that is not kept goes. Also when the daemon is killed meanwhile. CRASH_ROUNDS as in test/crash.
import { expect, test } from 'vitest';
import { numberFromEnv, Random, testSeed } from '../support/random.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { callsOf, COLLECT, startAlone } from './client.ts';
import { actorsOf, noRoots } from './gc-actor.ts';
import { check } from './gc-model.ts';

const ROUNDS = Math.ceil(numberFromEnv('CRASH_ROUNDS', 50) / 8);
const LOAD_MS_MAX = 700;

test('clients at work while collections run lose nothing and leave nothing', async () => {
  const seed = testSeed();
  process.stdout.write(`gc: BALLAST_SEED=${seed}\n`);
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path, COLLECT);
  using calls = callsOf(daemon);
  const roots = noRoots();
  const random = new Random(seed);
  await Promise.all(
    actorsOf('x', random, { daemon, calls, roots }).map(async (actor) => {
      for (let n = 0; n < 25; n++) await actor.work();
    }),
  );
  expect([...roots.values()].some(({ size }) => size > 0)).toBe(true);
  await check(daemon, root.path, roots);
}, 120_000);

test(
  `${ROUNDS} kills while collections run lose nothing, and the next run leaves nothing`,
  async () => {
    const seed = testSeed();
    process.stdout.write(`gc: BALLAST_SEED=${seed}\n`);
    const random = new Random(seed);
    await using root = await temporaryFolder('alone');
    let daemon = await startAlone(root.path, COLLECT);
    const roots = noRoots();
    try {
      for (let round = 0; round < ROUNDS; round++) {
        using calls = callsOf(daemon);
        let dying = false;
        const load = Promise.all(
          actorsOf(`r${round}`, random, { daemon, calls, roots }).map(async (actor) => {
            try {
              for (;;) await actor.work();
            } catch (error) {
              if (!dying) throw error;
            }
          }),
        );
        load.catch(() => undefined);
        await new Promise((resolve) => setTimeout(resolve, 50 + random.below(LOAD_MS_MAX)));
        dying = true;
        await daemon.stop('SIGKILL');
        await load;
        await daemon[Symbol.asyncDispose]();
        daemon = await startAlone(root.path, COLLECT);
        await check(daemon, root.path, roots);
      }
    } finally {
      await daemon[Symbol.asyncDispose]();
    }
  },
  ROUNDS * 20_000,
);
