// Transfers on ballast alone: clients that vanish, collections beside them, leases, windows.
import { randomBytes } from 'node:crypto';
import { watch } from 'node:fs';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, onTestFinished, test } from 'vitest';
import { RELEASES } from '../interop/containerd.ts';
import { Program } from '../interop/program.ts';
import { loopFileSystem } from '../support/loop-fs.ts';
import { PATIENCE_MS, within } from '../support/patience.ts';
import { END, rawHeader } from '../support/tar.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { dockerArchive, imageOf, severalImages } from './archives.ts';
import { callsOf, COLLECT, inside, RPC, startAlone } from './client.ts';
import { leftOf, NOTHING } from './left.ts';
import { Alone } from './site.ts';
import { packed, TransferClient, transferTypes, type Headers } from './transfer-client.ts';

const ctx = inside('test');
const here: Headers = { namespace: 'test' };
const leased: Headers = { namespace: 'test', lease: 'mine' };

const NAMED = {
  extraReferences: [{ name: 'any.invalid/any', isPrefix: true, allowOverwrite: true }],
};
const UNPACKED = { ...NAMED, unpacks: [{ snapshotter: 'native' }] };

const importFrom = (stream: string) =>
  packed('ImageImportStream', transferTypes.ImageImportStream, { stream });
const exportTo = (stream: string) =>
  packed('ImageExportStream', transferTypes.ImageExportStream, { stream });
const store = (properties: Parameters<TransferClient['import']>[2]) =>
  packed('ImageStore', transferTypes.ImageStore, properties);

const FAILING: Readonly<Record<string, readonly [archive: () => Buffer, code: string]>> = {
  'cut off within a layer': [() => imageOf(randomBytes(1 << 20)).subarray(0, 500_000), 'DataLoss'],
  'cut off, compressed': [
    () => gzipSync(imageOf(randomBytes(1 << 20))).subarray(0, 500_000),
    'DataLoss',
  ],
  'a blob that is not what its name says': [
    () => {
      const archive = imageOf(Buffer.from('text'));
      // Of the config, which is plain text.
      archive.write('LINUX', archive.indexOf('"os":"linux"') + 6);
      return archive;
    },
    'NotFound',
  ],
  'a layer that is no gzip, to be unpacked': [
    () => {
      const archive = severalImages();
      const at = archive.indexOf(Buffer.from([0x1f, 0x8b]));
      return archive.fill(9, at + 12, at + 40);
    },
    'NotFound',
  ],
  'more bytes announced than there are': [
    () => rawHeader({ name: 'blob', size: '77777777777' }),
    'DataLoss',
  ],
  'a document that is too large': [
    () => rawHeader({ name: 'manifest.json', size: '77777777777' }),
    'InvalidArgument',
  ],
  'a file with holes': [
    () =>
      Buffer.concat([
        rawHeader({
          name: 'sparse',
          type: 'S',
          size: 0,
          magic: 'ustar  \0',
          more: [
            [386, '00000000000\0'],
            [398, '00000000000\0'],
            [483, '37777777777\0'],
          ],
        }),
        END,
      ]),
    'InvalidArgument',
  ],
};

test('an import that fails leaves nothing behind a collection', async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path, COLLECT);
  using client = new TransferClient(daemon.socket);
  for (const [what, [archive, code]] of Object.entries(FAILING)) {
    await expect(client.import(here, archive(), UNPACKED), what).rejects.toMatchObject({ code });
    expect([what, await leftOf(daemon)]).toEqual([what, NOTHING]);
  }
});

test('an archive that the disk does not hold leaves room for another', async () => {
  await using disk = await loopFileSystem('ext4', 64);
  await using daemon = await startAlone(`${disk.path}/root`, COLLECT);
  using client = new TransferClient(daemon.socket);
  const large = imageOf(randomBytes(80 << 20));
  await expect(client.import(here, large, UNPACKED)).rejects.toMatchObject({
    code: 'ResourceExhausted',
  });
  expect(await leftOf(daemon)).toEqual(NOTHING);
  await client.import(here, imageOf(randomBytes(10 << 20)), UNPACKED);
  expect(await leftOf(daemon)).toMatchObject({ images: ['example.invalid/large:1'], leases: 0 });
});

test('a client that is gone in the middle leaves nothing behind a collection', async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path, COLLECT);
  using client = new TransferClient(daemon.socket);
  const archive = imageOf(randomBytes(4 << 20));
  // Its stream ends, and the request hears of it.
  const stream = await client.open(here, 'data');
  const transferred = client.transfer(here, importFrom('data'), store(UNPACKED));
  expect(await stream.sendBytes(archive.subarray(0, 2 << 20), { andEnd: false })).toBe(2 << 20);
  stream.cancel();
  // Of a stream that ends in between, the client's end is seen first or its absence.
  const code = expect.stringMatching(/^(Canceled|DataLoss)$/);
  await expect(transferred).rejects.toMatchObject({ code });
  expect(await leftOf(daemon)).toEqual(NOTHING);
  // The request ends, and the stream with it.
  const second = await client.open(here, 'data');
  const giveUp = new AbortController();
  const given = client.transfer(here, importFrom('data'), store(UNPACKED), {
    signal: giveUp.signal,
  });
  await second.sendBytes(archive.subarray(0, 2 << 20), { andEnd: false });
  giveUp.abort();
  await expect(given).rejects.toMatchObject({ code: 'Canceled' });
  expect(await second.ended).toBeUndefined();
});

test('ctr is killed in the middle of an import: what it had sent goes with its lease', async () => {
  const [release] = RELEASES.slice(-1);
  if (release === undefined) throw new Error('no release');
  const alone = await Alone.start(release, { gc: COLLECT });
  const archive = imageOf(randomBytes(4 << 20));
  await writeFile(join(alone.folder, 'half.tar'), archive.subarray(0, 2 << 20));
  await alone.sh('mkfifo pipe end');
  const ctr = alone.beside('images', 'import', join(alone.folder, 'pipe'));
  // It stays open, so that the archive has no end.
  const script = 'cd "$1"; exec 3>pipe; cat half.tar >&3; read -r _ <end';
  const writing = new Program('sh', ['-c', script, 'sh', alone.folder]);
  onTestFinished(async () => {
    await writing.stop('SIGKILL');
  });
  const ingests = join(alone.folder, 'root/content/ingests');
  const count = async (): Promise<number> => (await readdir(ingests)).length;
  await changed('an ingest', ingests, async () => (await count()) > 0);
  await ctr.stop('SIGKILL');
  await changed('its end', ingests, async () => (await count()) === 0);
  expect(await alone.ctr('images', 'ls', '-q')).toBe('');
  const lease = (await alone.ctr('leases', 'ls', '-q')).trim();
  await alone.ctr('leases', 'rm', '--sync', lease);
  expect(await alone.ctr('content', 'ls', '-q')).toBe('');
  expect(await alone.ctr('content', 'active')).not.toContain('import');
});

/** Resolves when it is so; looks whenever something happens in the folder. */
async function changed(what: string, folder: string, isSo: () => Promise<boolean>): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const look = (): void => {
    isSo().then((yes) => (yes ? resolve() : undefined), reject);
  };
  const watcher = watch(folder, look);
  try {
    look();
    await within(PATIENCE_MS, what, promise);
  } finally {
    watcher.close();
  }
}

test('collections beside an import take nothing of it', async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path, COLLECT);
  using client = new TransferClient(daemon.socket);
  using calls = callsOf(daemon);
  let isOver = false;
  const collecting = (async () => {
    for (let n = 0; !isOver; n++) {
      await calls.unary(ctx, RPC.createLease, { id: `collect ${n}` });
      await calls.unary(ctx, RPC.deleteLease, { id: `collect ${n}`, sync: true });
    }
  })();
  try {
    const archives = [
      severalImages(),
      imageOf(randomBytes(3 << 20)),
      severalImages(),
      dockerArchive(),
    ];
    await Promise.all(archives.map((archive) => client.import(here, archive, UNPACKED)));
  } finally {
    isOver = true;
    await collecting;
  }
  const { images } = await calls.unary(ctx, RPC.listImages, {});
  expect(images.map(({ name }) => name)).toEqual([
    'any.invalid/any:second',
    'docker.io/library/short:latest',
    'example.invalid/both:1',
    'example.invalid/large:1',
    'one.invalid/a:1',
  ]);
  for (const { name } of images) {
    const archive = await client.export(here, [name ?? ''], { allPlatforms: true });
    expect(archive.length).toBeGreaterThan(1024);
  }
  const { leases } = await calls.unary(ctx, RPC.listLeases, {});
  expect(leases).toEqual([]);
});

test("what is imported under the caller's lease is the lease's", async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path, COLLECT);
  using client = new TransferClient(daemon.socket);
  using calls = callsOf(daemon);
  await calls.unary(ctx, RPC.createLease, { id: 'mine' });
  // No image gets a name: only the lease keeps them.
  await client.import(leased, severalImages(), { unpacks: [{ snapshotter: 'native' }] });
  const { resources } = await calls.unary(ctx, RPC.listResources, { id: 'mine' });
  const types = new Set(resources.map(({ type }) => type));
  expect([...types].toSorted()).toEqual(['content', 'snapshots/native']);
  const left = await leftOf(daemon);
  expect(left).toMatchObject({ images: [], leases: 1, ingests: 0, snapshots: 5 });
  expect(left.blobs).toBeGreaterThan(10);
  await calls.unary(ctx, RPC.deleteLease, { id: 'mine', sync: true });
  expect(await leftOf(daemon)).toEqual(NOTHING);
});

test('a stream ends with its lease, and its name is free after it', async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path, COLLECT);
  using client = new TransferClient(daemon.socket);
  using calls = callsOf(daemon);
  await calls.unary(ctx, RPC.createLease, { id: 'mine' });
  const stream = await client.open(leased, 'name');
  const other = await client.open(here, 'other');
  await leftOf(daemon);
  await expect(client.open(here, 'name')).rejects.toMatchObject({ code: 'AlreadyExists' });
  await calls.unary(ctx, RPC.deleteLease, { id: 'mine', sync: true });
  expect(await stream.ended).toBeUndefined();
  await client.open(here, 'name');
  await expect(client.open(here, 'other')).rejects.toMatchObject({ code: 'AlreadyExists' });
  other.cancel();
});

test('an export sends no more than the client takes, and ends with the request', async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path);
  using client = new TransferClient(daemon.socket);
  await client.import(here, imageOf(randomBytes(200_000)), NAMED);
  const whole = await client.export(here, ['example.invalid/large:1']);
  const giveUp = new AbortController();
  const stream = await client.open(here, 'small windows');
  const source = store({ name: 'example.invalid/large:1' });
  const given = client.transfer(here, source, exportTo('small windows'), { signal: giveUp.signal });
  let received = Buffer.alloc(0);
  for (const window of [1, 999, 4000, 70_000]) {
    await stream.grant(window);
    const end = received.length + window;
    while (received.length < end) {
      const message = await stream.receive();
      if (message === undefined) throw new Error('the stream ended');
      received = Buffer.concat([received, transferTypes.Data.decode(message.value).data]);
    }
    expect(received.length).toBe(end);
  }
  expect(received.equals(whole.subarray(0, received.length))).toBe(true);
  giveUp.abort();
  await expect(given).rejects.toMatchObject({ code: 'Canceled' });
  // Nothing came unasked.
  expect(await stream.receive()).toBeUndefined();
  expect(await stream.ended).toBeUndefined();
});

test('an export that is under way when its image is removed has all of it', async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path, COLLECT);
  using client = new TransferClient(daemon.socket);
  using calls = callsOf(daemon);
  const name = 'example.invalid/large:1';
  await client.import(here, imageOf(randomBytes(300_000)), NAMED);
  const whole = await client.export(here, [name]);
  const stream = await client.open(here, 'slow');
  const given = client.transfer(here, store({ name }), exportTo('slow'));
  // The first bytes tell that it has begun; then it waits.
  await stream.grant(512);
  const first = await stream.receive();
  if (first === undefined) throw new Error('the stream ended');
  await calls.unary(ctx, RPC.deleteImage, { name, sync: true });
  const rest = await stream.receiveBytes();
  await given;
  const start = transferTypes.Data.decode(first.value).data;
  expect(Buffer.concat([start, rest]).equals(whole)).toBe(true);
  expect(await leftOf(daemon)).toEqual(NOTHING);
});

test('a client that takes no more of an export ends it', async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path);
  using client = new TransferClient(daemon.socket);
  await client.import(here, imageOf(randomBytes(200_000)), NAMED);
  const stream = await client.open(here, 'closed');
  const given = client.transfer(
    here,
    store({ name: 'example.invalid/large:1' }),
    exportTo('closed'),
  );
  await stream.grant(1000);
  stream.end();
  await expect(given).rejects.toMatchObject({ code: 'Canceled' });
});

test('an import ends with the archive, also when its client says no end', async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path);
  using client = new TransferClient(daemon.socket);
  const archives = { plain: severalImages(), compressed: gzipSync(severalImages()) };
  for (const [name, archive] of Object.entries(archives)) {
    const stream = await client.open(here, name);
    const given = client.transfer(here, importFrom(name), store(NAMED));
    await stream.sendBytes(archive, { andEnd: false });
    await within(PATIENCE_MS, name, given);
    expect(await stream.ended).toBeUndefined();
  }
});

test('a client that sends more than it may is refused', async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path);
  using client = new TransferClient(daemon.socket);
  const stream = await client.open(here, 'pushy');
  const given = client.transfer(here, importFrom('pushy'), store(NAMED));
  const data = new Uint8Array(3 << 20);
  await stream.send(packed('Data', transferTypes.Data, { data }));
  await expect(given).rejects.toMatchObject({ code: 'InvalidArgument' });
});

test('a stream that a request names twice ends with the request', async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path);
  using client = new TransferClient(daemon.socket);
  const stream = await client.open(here, 'both ends');
  const giveUp = new AbortController();
  const given = client.transfer(here, importFrom('both ends'), exportTo('both ends'), {
    progress: 'both ends',
    signal: giveUp.signal,
  });
  // The window is opened: the transfer is under way.
  expect((await stream.receive())?.type_url).toBe('containerd.types.transfer.WindowUpdate');
  giveUp.abort();
  await expect(given).rejects.toMatchObject({ code: 'Canceled' });
  expect(await stream.ended).toBeUndefined();
  expect(await daemon.stop('SIGTERM')).toEqual({ code: 0, signal: null });
});

test('a daemon that dies in the middle of an import leaves nothing but for its lease', async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path, COLLECT);
  using client = new TransferClient(daemon.socket);
  const archive = imageOf(randomBytes(4 << 20));
  const stream = await client.open(here, 'data');
  const given = client.transfer(here, importFrom('data'), store(UNPACKED));
  given.catch(() => undefined);
  // All but the end of the archive: its blobs are on the disk, or on their way.
  await stream.sendBytes(archive.subarray(0, archive.length - 1024), { andEnd: false });
  await using next = await daemon.restart('SIGKILL');
  await expect(given).rejects.toThrow();
  const left = await leftOf(next);
  expect(left).toMatchObject({ images: [], snapshots: 0, leases: 1 });
  using calls = callsOf(next);
  const [lease] = (await calls.unary(ctx, RPC.listLeases, {})).leases;
  expect(lease?.labels).toHaveProperty(['containerd.io/gc.expire']);
  await calls.unary(ctx, RPC.deleteLease, { id: lease?.id ?? '', sync: true });
  expect(await leftOf(next)).toEqual(NOTHING);
});

test('pull and push are not there yet', async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path);
  using client = new TransferClient(daemon.socket);
  const registry = packed('OCIRegistry', transferTypes.OCIRegistry, {
    reference: 'example.invalid/image:1',
  });
  const [one, other] = ['OCIRegistry', 'ImageStore'].map(
    (name) => `containerd.types.transfer.${name}`,
  );
  await expect(client.transfer(here, registry, store(NAMED))).rejects.toMatchObject({
    code: 'Unimplemented',
    message: `method Transfer not implemented for ${one} to ${other}`,
  });
  await expect(client.transfer(here, store(NAMED), registry)).rejects.toMatchObject({
    code: 'Unimplemented',
    message: `method Transfer not implemented for ${other} to ${one}`,
  });
});
