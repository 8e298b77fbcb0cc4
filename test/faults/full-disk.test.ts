// A full disk: every creating call ends in RESOURCE_EXHAUSTED naming the cause and leaves nothing
// behind, reads and removals work, and once there is room again nothing has to be repaired.
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { test } from 'vitest';
import { background } from '../../src/base/context.ts';
import type { Digest } from '../../src/base/digest.ts';
import { isOpError } from '../../src/base/errors.ts';
import type { Client } from '../support/client.ts';
import { collect } from '../support/collect.ts';
import { Daemon, DRIVERS } from '../support/daemon.ts';
import { fill } from '../support/fill-disk.ts';
import { fileSystemFor, loopFileSystem } from '../support/loop-fs.ts';
import { bytesOf } from '../support/random.ts';

/** btrfs makes none smaller than 109 MB. */
const DISK_MB = 128;
/** Blocks already there take some small things before the first is refused. */
const TRIES_MAX = 3000;
const KEPT = 'kept, with children';

for (const driver of DRIVERS) {
  test(`${driver}: on a full disk creating is refused, reading and removing work, nothing needs repair`, async () => {
    await using disk = await loopFileSystem(fileSystemFor(driver), DISK_MB);
    const options = { root: `${disk.path}/root`, snapshotter: driver };
    const names: string[] = [];
    {
      await using daemon = await Daemon.start(options);
      const { client } = daemon;
      const manifest = await store(client, 'manifest', bytesOf(1, 500));
      const layer = await store(client, 'layer', bytesOf(2, 3 << 20));
      await client.snapshotter.prepare(background, 'to be kept', '', new Map());
      await client.snapshotter.commit(background, KEPT, 'to be kept', new Map(), '');
      await client.snapshotter.prepare(background, 'active', KEPT, new Map());
      await fill(`${disk.path}/filler`);

      names.push(...(await refusals(client)));
      await readsWork(client, manifest, layer);
      assert.deepEqual(await listed(client), [KEPT, 'active', ...names].toSorted());
      await removalsWork(client, layer, names);
      assert.deepEqual(await listed(client), [KEPT]);

      await (await open(`${disk.path}/filler`, 'w')).close();
      await client.snapshotter.prepare(background, 'room again', KEPT, new Map());
      await store(client, 'layer again', bytesOf(3, 3 << 20));
      await daemon.stop('SIGTERM');
      assert.doesNotMatch(daemon.stderr, /^\s+at /m);
    }
    await using daemon = await Daemon.start(options);
    assert.deepEqual(await listed(daemon.client), [KEPT, 'room again']);
    assert.equal((await collect(daemon.client.content.walk(background, []))).length, 2);
    assert.deepEqual(await daemon.client.content.statuses(background, []), []);
  });
}

test('a daemon starts on a full disk, answers, and removes', async () => {
  await using disk = await loopFileSystem('ext4', DISK_MB);
  const options = { root: `${disk.path}/root`, snapshotter: 'overlayfs' } as const;
  let layer: Digest;
  {
    await using daemon = await Daemon.start(options);
    layer = await store(daemon.client, 'layer', bytesOf(4, 3 << 20));
    await daemon.client.snapshotter.prepare(background, 'active', '', new Map());
    await fill(`${disk.path}/filler`);
    await daemon.stop('SIGKILL');
  }
  await using daemon = await Daemon.start(options);
  const { content, snapshotter } = daemon.client;
  assert.equal((await content.info(background, layer)).size, 3 << 20);
  await snapshotter.remove(background, 'active');
  await content.delete(background, layer);
  assert.deepEqual(await listed(daemon.client), []);
});

async function store(client: Client, ref: string, bytes: Buffer): Promise<Digest> {
  await using writer = await client.content.writer(background, ref, {});
  for (let at = 0; at < bytes.length; at += 1 << 20) {
    await writer.write(at, Buffer.from(bytes.subarray(at, at + (1 << 20))));
  }
  return await writer.commit(new Map());
}

/** Tries each creating call until it is refused. @returns the snapshots that were made nevertheless */
async function refusals(client: Client): Promise<readonly string[]> {
  const { snapshotter } = client;
  const made: string[] = [];
  const make = (verb: 'prepare' | 'view') => async (n: number) => {
    await snapshotter[verb](
      background,
      `${verb} ${n}`,
      KEPT,
      new Map([['filling', 'x'.repeat(500)]]),
    );
    made.push(`${verb} ${n}`);
  };
  await untilRefused('blob of 1 MiB', (n) => store(client, `big ${n}`, bytesOf(n, 1 << 20)));
  await untilRefused('Prepare', make('prepare'));
  await untilRefused('View', make('view'));
  await untilRefused('blob of 4 KiB', (n) => store(client, `small ${n}`, bytesOf(9000 + n, 4096)));
  await untilRefused('Update', (n) =>
    snapshotter.update(background, { name: 'active', labels: new Map([['n', `${n}`]]) }, []),
  );
  return made;
}

async function untilRefused(what: string, call: (n: number) => Promise<unknown>): Promise<void> {
  for (let n = 0; n < TRIES_MAX; n++) {
    try {
      await call(n);
    } catch (error) {
      assert.ok(isOpError(error), `${what}: ${String(error)}`);
      assert.equal(error.code, 'ResourceExhausted', `${what}: ${error.message}`);
      assert.match(error.message, /no space left|disk.*full|quota/i, what);
      return;
    }
  }
  assert.fail(`${what} was never refused`);
}

async function readsWork(client: Client, manifest: Digest, layer: Digest): Promise<void> {
  const { snapshotter, content } = client;
  await snapshotter.stat(background, KEPT);
  await snapshotter.usage(background, KEPT);
  await snapshotter.mounts(background, 'active');
  const [small, big] = [bytesOf(1, 500), bytesOf(2, 3 << 20)];
  assert.ok(Buffer.concat(await collect(content.read(background, manifest, 0, 0))).equals(small));
  let at = 0;
  for await (const chunk of content.read(background, layer, 0, 0)) {
    assert.ok(big.subarray(at, at + chunk.length).equals(chunk));
    at += chunk.length;
  }
  assert.equal(at, big.length);
}

async function removalsWork(
  { snapshotter, content }: Client,
  layer: Digest,
  names: readonly string[],
): Promise<void> {
  for (const name of ['active', ...names]) await snapshotter.remove(background, name);
  await content.delete(background, layer);
  for (const { ref } of await content.statuses(background, []))
    await content.abort(background, ref);
  for await (const info of content.walk(background, [])) {
    if (info.size === 4096) await content.delete(background, info.digest);
  }
  await snapshotter.cleanup(background);
}

const listed = async ({ snapshotter }: Client): Promise<readonly string[]> =>
  (await collect(snapshotter.walk(background, []))).map((info) => info.name).toSorted();
