// Imports into snapshotters that cannot rebase: while a layer is written, the next one is read.
import { readdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { NO_LABELS } from '../../src/base/labels.ts';
import { expectedTree, listTree, twelveLayers } from '../interop/images.ts';
import type { Daemon } from '../support/daemon.ts';
import { fileSystemFor, loopFileSystem, rootFor } from '../support/loop-fs.ts';
import { performMounts } from '../support/mounts.ts';
import { PATIENCE_MS, within } from '../support/patience.ts';
import { END, rawEntry, rawHeader } from '../support/tar.ts';
import { digestOf, imageOfLayers } from './archives.ts';
import { callsOf, COLLECT, inside, RPC, startAlone } from './client.ts';
import { leftOf, NOTHING } from './left.ts';
import { packed, TransferClient, transferTypes, type Headers } from './transfer-client.ts';

const ctx = inside('test');
const here: Headers = { namespace: 'test' };
const NAME = 'image.invalid/ahead:1';
const DRIVERS = ['native', 'btrfs'] as const;

/** How much more than an idle daemon one may need for an image. */
const MEMORY_BYTES_MAX = 64 << 20;

const plainOf = (name: string, bytes: number): Buffer =>
  Buffer.concat([rawEntry({ name }, Buffer.alloc(bytes, name)), END]);

const storeOf = (snapshotter: string) => ({ name: NAME, unpacks: [{ snapshotter }] });

const snapshotsOf = async ({ client }: Daemon) => Array.fromAsync(client.snapshotter.walk(ctx, []));

/** Digests of the blobs that the daemon has open. */
async function openBlobs({ pid }: Daemon): Promise<readonly string[]> {
  const fds = await readdir(`/proc/${pid}/fd`);
  const paths = await Promise.all(
    fds.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')),
  );
  return paths.flatMap(
    (path) => /\/blobs\/(sha256)\/(\w{64})$/.exec(path)?.slice(1).join(':') ?? [],
  );
}

/** Looks, with a request in between, until it is so. */
async function until(what: string, { client }: Daemon, isSo: () => Promise<boolean>) {
  const looking = (async () => {
    while (!(await isSo())) await client.serving();
  })();
  await within(PATIENCE_MS, what, looking);
}

const manyFiles = (count: number): Buffer =>
  Buffer.concat([
    ...Array.from({ length: count }, (_, n) => rawHeader({ name: `d${n % 100}/f${n}` })),
    END,
  ]);

/** One that is read long before it is written, below two that are more than what is read ahead. */
const LAYERS = [manyFiles(15_000), plainOf('b', 24 << 20), plainOf('c', 24 << 20)];
const BLOBS = LAYERS.map((plain) => gzipSync(plain, { level: 1 }));
const LARGE = imageOfLayers(
  NAME,
  LAYERS.map((plain, at) => ({ plain, ...(BLOBS[at] && { blob: BLOBS[at] }) })),
);

/** Resolves while a layer is being written and the blob of the one above it is read. */
async function aheadOf(daemon: Daemon): Promise<void> {
  const digests = BLOBS.map(digestOf);
  await until('a layer that is read ahead', daemon, async () => {
    const open = await openBlobs(daemon);
    const snapshots = await snapshotsOf(daemon);
    const active = snapshots.filter(({ kind }) => kind === 'active').length;
    const written = snapshots.length - active;
    return active === 1 && open.some((digest) => digests.indexOf(digest) > written);
  });
}

for (const driver of DRIVERS) {
  test(`${driver}: while a layer is written the next one is read; given up it leaves nothing, and a daemon that ends waits for it`, async () => {
    // In memory: native copies all of these files for each layer.
    await using root = await loopFileSystem(fileSystemFor(driver), 2048);
    await using daemon = await startAlone(root.path, COLLECT, driver);
    using client = new TransferClient(daemon.socket);
    using calls = callsOf(daemon);
    const began = async (id: string, signal: AbortSignal) => {
      const stream = await client.open(here, id);
      const given = client.transfer(
        here,
        packed('ImageImportStream', transferTypes.ImageImportStream, { stream: id }),
        packed('ImageStore', transferTypes.ImageStore, storeOf(driver)),
        { signal },
      );
      given.catch(() => undefined);
      await stream.sendBytes(LARGE);
      await aheadOf(daemon);
      return { given };
    };
    const giveUp = new AbortController();
    const { given } = await began('given up', giveUp.signal);
    giveUp.abort();
    await expect(given).rejects.toMatchObject({ code: 'Canceled' });
    await until('the end of the request', daemon, async () => {
      const { leases } = await calls.unary(ctx, RPC.listLeases, {});
      return leases.length === 0;
    });
    expect(await openBlobs(daemon)).toEqual([]);
    expect(await leftOf(daemon)).toEqual(NOTHING);

    await client.import(here, LARGE, storeOf(driver));
    const snapshots = await snapshotsOf(daemon);
    expect(snapshots.map(({ kind }) => kind)).toEqual(LAYERS.map(() => 'committed'));
    await calls.unary(ctx, RPC.deleteImage, { name: NAME, sync: true });
    expect(await leftOf(daemon)).toEqual(NOTHING);

    const stopped = await began('stopped', new AbortController().signal);
    daemon.signal('SIGTERM');
    await stopped.given;
    expect(await daemon.ended()).toEqual({ code: 0, signal: null });
    await using next = await startAlone(root.path, COLLECT, driver);
    expect((await snapshotsOf(next)).map(({ kind }) => kind)).toEqual(
      LAYERS.map(() => 'committed'),
    );
  });

  test(`${driver}: a layer that is corrupt is told of by its name, and those below it are there`, async () => {
    await using root = await rootFor(driver, 'ahead');
    await using daemon = await startAlone(root.path, undefined, driver);
    using client = new TransferClient(daemon.socket);
    const plains = ['a', 'b', 'c', 'd'].map((name) => plainOf(name, 1 << 20));
    const corrupt = gzipSync(plains[2] ?? '', { level: 1 });
    corrupt.fill(9, 100, 200);
    const layers = plains.map((plain, at) => ({ plain, ...(at === 2 && { blob: corrupt }) }));
    const importing = client.import(here, imageOfLayers(NAME, layers), storeOf(driver));
    await expect(importing).rejects.toMatchObject({
      code: 'DataLoss',
      message: expect.stringMatching(`^layer ${digestOf(corrupt)}: gzip stream, near byte `),
    });
    const snapshots = await snapshotsOf(daemon);
    expect(snapshots.map(({ kind }) => kind)).toEqual(['committed', 'committed']);
    expect(await openBlobs(daemon)).toEqual([]);
    expect(await daemon.client.content.statuses(ctx, [])).toEqual([]);
  });

  test(
    `${driver}: a Debian in twelve layers is, file by file, what umoci makes of it`,
    { timeout: 600_000 },
    async () => {
      const image = await twelveLayers();
      await using disk = await loopFileSystem(fileSystemFor(driver), 8192);
      await using daemon = await startAlone(join(disk.path, 'root'), undefined, driver);
      using client = new TransferClient(daemon.socket);
      await client.import(here, await readFile(image.archive), storeOf(driver));
      const snapshots = await snapshotsOf(daemon);
      expect(snapshots).toHaveLength(image.layers);
      const parents = new Set(snapshots.map(({ parent }) => parent));
      const top = snapshots.find(({ name }) => !parents.has(name));
      const { snapshotter } = daemon.client;
      await using view = await performMounts(
        await snapshotter.view(ctx, 'view', top?.name ?? '', NO_LABELS),
      );
      expect(await listTree(view.path, image.touched)).toEqual(await expectedTree(image));
    },
  );
}

const statusOf = async ({ pid }: Daemon, field: string): Promise<number> => {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)?.[1]) * 1024;
};

test('several large layers on btrfs need no more memory than a layer may', async () => {
  await using disk = await loopFileSystem('btrfs', 2048);
  await using daemon = await startAlone(join(disk.path, 'root'), undefined, 'btrfs');
  using client = new TransferClient(daemon.socket);
  const layers = ['a', 'b', 'c', 'd', 'e'].map((name) => ({ plain: plainOf(name, 64 << 20) }));
  const archive = imageOfLayers(NAME, layers);
  // What an import takes without layers is not theirs.
  await client.import(here, archive, { name: NAME });
  const idle = await statusOf(daemon, 'VmRSS');
  await writeFile(`/proc/${daemon.pid}/clear_refs`, '5');
  await client.import(here, archive, storeOf('btrfs'));
  const peak = await statusOf(daemon, 'VmHWM');
  expect(peak - idle, `bytes above ${idle}`).toBeLessThan(MEMORY_BYTES_MAX);
});
