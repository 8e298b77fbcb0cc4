// A request's changes are one record: however often the daemon is killed or the power fails under load, what
// was made under a lease is there with it, and what the lease keeps is there. CRASH_ROUNDS and POWER_CUTS as in
// test/crash.
import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { parseDigest } from '../../src/base/digest.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import type { Daemon } from '../support/daemon.ts';
import { mountImage } from '../support/loop-fs.ts';
import { numberFromEnv, Random, testSeed } from '../support/random.ts';
import { SlowDisk } from '../support/slow-disk.ts';
import { slowDiskTest } from '../support/slow-disk-test.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { callsOf, inside, RPC, startAlone, TARGET } from './client.ts';

const ROUNDS = Math.ceil(numberFromEnv('CRASH_ROUNDS', 50) / 5);
const CUTS = Math.ceil(numberFromEnv('POWER_CUTS', 20) / 4);
const LOAD_MS_MAX = 300;
const ACTORS = 8;
const EXPIRE = { 'containerd.io/gc.expire': '2099-01-01T00:00:00Z' };

test(
  `${ROUNDS} kills under load part nothing from its lease and its namespace`,
  async () => {
    const seed = testSeed();
    process.stdout.write(`standalone: BALLAST_SEED=${seed}\n`);
    const random = new Random(seed);
    await using root = await temporaryFolder('alone');
    let daemon = await startAlone(root.path);
    const acknowledged = new Set<string>();
    try {
      for (let round = 0; round < ROUNDS; round++) {
        const load = new Load(daemon, `r${round}`, acknowledged);
        await new Promise((resolve) => setTimeout(resolve, random.below(LOAD_MS_MAX)));
        load.expectDeath();
        await daemon.stop('SIGKILL');
        await load.stop();
        await daemon[Symbol.asyncDispose]();
        daemon = await startAlone(root.path);
        await check(daemon, acknowledged);
      }
      expect(acknowledged.size).toBeGreaterThan(0);
    } finally {
      await daemon[Symbol.asyncDispose]();
    }
  },
  ROUNDS * 10_000,
);

slowDiskTest(
  `${CUTS} power cuts under load part nothing from its lease and its namespace`,
  async () => {
    const seed = testSeed();
    process.stdout.write(`standalone: BALLAST_SEED=${seed}\n`);
    const random = new Random(seed);
    await using disk = await SlowDisk.up();
    await using daemon = await startAlone(`${disk.path}/root`);
    const acknowledged = new Set<string>();
    for (let round = 0; round < CUTS; round++) {
      const load = new Load(daemon, `r${round}`, acknowledged);
      await new Promise((resolve) => setTimeout(resolve, random.below(LOAD_MS_MAX)));
      const before = new Set(acknowledged);
      const image = await disk.cut(random.below(2 ** 15));
      await load.stop();
      await using mounted = await mountImage(image);
      await using survivor = await startAlone(`${mounted.path}/root`);
      await check(survivor, before);
    }
    expect(acknowledged.size).toBeGreaterThan(0);
  },
  60_000 + CUTS * 20_000,
);

/** Actors that work until they are stopped, or the daemon dies. */
class Load {
  readonly #actors: Promise<unknown>;
  #stopping = false;
  #dying = false;

  constructor(daemon: Daemon, name: string, acknowledged: Set<string>) {
    const work = async (actor: number): Promise<void> => {
      try {
        for (let n = 0; !this.#stopping; n++) {
          await act(daemon, `${name}-a${actor}-${n}`, acknowledged);
        }
      } catch (error) {
        if (!this.#dying) throw error;
      }
    };
    this.#actors = Promise.all(Array.from({ length: ACTORS }, (_, actor) => work(actor)));
    this.#actors.catch(() => undefined);
  }

  expectDeath(): void {
    this.#dying = true;
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#actors;
  }
}

/** One snapshot, blob and image in a namespace of their own, all under a lease. */
async function act(daemon: Daemon, namespace: string, acknowledged: Set<string>): Promise<void> {
  using calls = callsOf(daemon);
  const { content, snapshotter } = daemon.client;
  const ctx = inside(namespace, 'lease');
  await calls.unary(ctx, RPC.createLease, { id: 'lease' });
  acknowledged.add(`${namespace} lease`);
  await snapshotter.prepare(ctx, 'key', '', NO_LABELS);
  acknowledged.add(`${namespace} snapshots/native key`);
  const bytes = Buffer.from(namespace);
  const hex = createHash('sha256').update(bytes).digest('hex');
  {
    await using writer = await content.writer(ctx, 'ref', {});
    await writer.write(0, Buffer.from(bytes));
    await writer.commit(NO_LABELS);
  }
  acknowledged.add(`${namespace} content ${parseDigest(`sha256:${hex}`)}`);
  const image = { name: 'image', target: TARGET, labels: EXPIRE };
  await calls.unary(ctx, RPC.createImage, { image });
  acknowledged.add(`${namespace} images image`);
}

async function check(daemon: Daemon, acknowledged: ReadonlySet<string>): Promise<void> {
  using calls = callsOf(daemon);
  const { content, snapshotter } = daemon.client;
  const found = new Set<string>();
  const kept = new Set<string>();
  const { namespaces } = await calls.unary(inside('any'), RPC.listNamespaces, {});
  for (const { name } of namespaces) {
    const ctx = inside(name ?? '');
    const { leases } = await calls.unary(ctx, RPC.listLeases, {});
    for (const { id } of leases) {
      found.add(`${name} ${id}`);
      kept.add(`${name} ${id}`);
    }
    for await (const info of snapshotter.walk(ctx, [])) {
      found.add(`${name} snapshots/native ${info.name}`);
    }
    for await (const { digest } of content.walk(ctx, [])) found.add(`${name} content ${digest}`);
    const { images } = await calls.unary(ctx, RPC.listImages, {});
    for (const image of images) found.add(`${name} images ${image.name}`);
    if (leases.length === 0) continue;
    const { resources } = await calls.unary(ctx, RPC.listResources, { id: 'lease' });
    // An ingest is resumable, not durable.
    for (const { type, id } of resources) if (type !== 'ingests') kept.add(`${name} ${type} ${id}`);
  }
  expect([...found].toSorted()).toEqual([...kept].toSorted());
  expect([...acknowledged].filter((each) => !found.has(each))).toEqual([]);
}
