// What a root or socket that can't be used leads to: one clear line, a status that is not 0, and
// nothing deleted; and how the daemon ends when asked to.
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { collect } from '../support/collect.ts';
import { Daemon, type DaemonOptions } from '../support/daemon.ts';
import { loopFileSystem } from '../support/loop-fs.ts';
import { bytesOf } from '../support/random.ts';
import { slowDiskTest } from '../support/slow-disk-test.ts';
import { SlowDisk } from '../support/slow-disk.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { assertOneClearLine } from './clear-line.ts';

const snapshotter = 'overlayfs';

/** The start fails with one line that says why. */
async function refuses(options: DaemonOptions, says: RegExp): Promise<void> {
  await using daemon = await Daemon.launch(options);
  const exit = await daemon.ended();
  assert.equal(exit.signal, null);
  assert.notEqual(exit.code, 0, `started in spite of ${says}`);
  assertOneClearLine(daemon.stderr, says);
}

/** A root with a blob and a committed snapshot, whose daemon ended. */
async function usedRoot(root: string): Promise<void> {
  await using daemon = await Daemon.start({ root, snapshotter });
  const { client } = daemon;
  await using writer = await client.content.writer(background, 'ref', {});
  await writer.write(0, bytesOf(1, 100_000));
  await writer.commit(new Map());
  for (let n = 0; n < 50; n++) {
    await client.snapshotter.prepare(
      background,
      `key ${n}`,
      '',
      new Map([['label', 'x'.repeat(200)]]),
    );
    await client.snapshotter.commit(background, `name ${n}`, `key ${n}`, new Map(), '');
  }
  await daemon.stop('SIGTERM');
}

/** Every file below, with its size; the metadata store's own ones may come and go. */
async function inventory(root: string): Promise<readonly string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  const files = entries.filter(
    (entry) => entry.isFile() && !entry.parentPath.includes('/metadata'),
  );
  const paths = files.map((entry) => join(entry.parentPath, entry.name)).toSorted();
  return Promise.all(paths.map(async (path) => `${path} ${(await stat(path)).size}`));
}

test('a second daemon on the same root is refused and the first goes on', async () => {
  await using folder = await temporaryFolder('start');
  await using first = await Daemon.start({ root: folder.path, snapshotter });
  await refuses({ root: folder.path, snapshotter }, /in use/);
  await first.client.snapshotter.prepare(background, 'still here', '', new Map());
});

test('the socket of a daemon that was killed is taken over', async () => {
  await using folder = await temporaryFolder('start');
  const options = {
    root: join(folder.path, 'root'),
    snapshotter,
    socket: join(folder.path, 's.sock'),
  } as const;
  await using first = await Daemon.start(options);
  await first.stop('SIGKILL');
  assert.ok((await stat(options.socket)).isSocket());
  await using second = await Daemon.start(options);
  await second.client.snapshotter.prepare(background, 'served', '', new Map());
});

test('a socket that somebody else listens on is left to him', async () => {
  await using folder = await temporaryFolder('start');
  const socket = join(folder.path, 's.sock');
  const server = createServer();
  server.listen(socket);
  await once(server, 'listening');
  try {
    await refuses({ root: join(folder.path, 'root'), snapshotter, socket }, /s\.sock/);
    assert.ok((await stat(socket)).isSocket());
  } finally {
    server.close();
  }
});

test('a file in the place of the socket is not deleted', async () => {
  await using folder = await temporaryFolder('start');
  const socket = join(folder.path, 's.sock');
  await writeFile(socket, 'precious');
  await refuses({ root: join(folder.path, 'root'), snapshotter, socket }, /s\.sock/);
  assert.equal(await readFile(socket, 'utf8'), 'precious');
});

test('a root written by a newer version is refused and left as it is', async () => {
  await using folder = await temporaryFolder('start');
  await usedRoot(folder.path);
  const marker = join(folder.path, 'ballast.json');
  const written: unknown = JSON.parse(await readFile(marker, 'utf8'));
  assert.ok(typeof written === 'object' && written !== null && 'format' in written);
  await writeFile(marker, JSON.stringify({ ...written, format: Number(written.format) + 1 }));
  const before = await inventory(folder.path);
  await refuses({ root: folder.path, snapshotter }, /newer/);
  assert.deepEqual(await inventory(folder.path), before);
});

test('a root that can only be read is refused', async () => {
  await using disk = await loopFileSystem('ext4', 64);
  await usedRoot(join(disk.path, 'root'));
  await disk.remount('ro');
  const before = await inventory(disk.path);
  await refuses(
    { root: join(disk.path, 'root'), snapshotter },
    /read-only|EROFS|cannot be written/i,
  );
  await disk.remount('rw');
  assert.deepEqual(await inventory(disk.path), before);
});

test('a file system whose directories tell no file types is refused for overlay', async () => {
  await using disk = await loopFileSystem('ext4', 64, ['-O', '^filetype']);
  await refuses({ root: join(disk.path, 'root'), snapshotter }, /d_type|file type|overlay/i);
});

test('an unknown snapshotter is refused', async () => {
  await using folder = await temporaryFolder('start');
  await refuses({ root: folder.path, snapshotter: 'floppy' }, /floppy/);
});

for (const [what, damage] of [
  ['overwritten with garbage', (bytes: Buffer) => bytesOf(7, bytes.length)],
  ['cut to half', (bytes: Buffer) => bytes.subarray(0, bytes.length >> 1)],
  ['emptied', () => Buffer.alloc(0)],
  [
    'flipped in one bit',
    (bytes: Buffer) => {
      bytes.writeUInt8(bytes.readUInt8(bytes.length >> 1) ^ 16, bytes.length >> 1);
      return bytes;
    },
  ],
] as const) {
  test(`a metadata store with a file ${what} is refused, and nothing is deleted`, async () => {
    await using folder = await temporaryFolder('start');
    await usedRoot(folder.path);
    const metadata = join(folder.path, 'metadata');
    const files = (await readdir(metadata)).filter((name) => /^\d+\.(log|ldb)$/.test(name));
    const before = await inventory(folder.path);
    let damaged = 0;
    for (const name of files) {
      const path = join(metadata, name);
      const bytes = await readFile(path);
      if (bytes.length === 0) continue;
      await writeFile(path, damage(Buffer.from(bytes)));
      await refuses({ root: folder.path, snapshotter }, /damaged|corrupt/i);
      await writeFile(path, bytes);
      damaged++;
    }
    assert.ok(damaged > 0, `no log or table among ${files.join()}`);
    assert.deepEqual(await inventory(folder.path), before);
  });
}

test('a blob whose file is gone is not told of from the first answer on, and can be written again', async () => {
  await using folder = await temporaryFolder('start');
  await usedRoot(folder.path);
  const blobs = join(folder.path, 'content/blobs/sha256');
  for (const name of await readdir(blobs)) await rm(join(blobs, name));
  await using daemon = await Daemon.start({ root: folder.path, snapshotter });
  const { content } = daemon.client;
  assert.deepEqual(await collect(content.walk(background, [])), []);
  await using writer = await content.writer(background, 'again', {});
  await writer.write(0, bytesOf(1, 100_000));
  const digest = await writer.commit(new Map());
  assert.equal((await content.info(background, digest)).size, 100_000);
});

test('SIGTERM lets an upload under way finish', async () => {
  await using folder = await temporaryFolder('start');
  const options = { root: folder.path, snapshotter } as const;
  const bytes = bytesOf(5, 1 << 20);
  await using daemon = await Daemon.start(options);
  const writer = await daemon.client.content.writer(background, 'upload', {});
  await writer.write(0, Buffer.from(bytes));
  daemon.signal('SIGTERM');
  await writer.write(bytes.length, Buffer.from(bytes));
  const digest = await writer.commit(new Map());
  await writer[Symbol.asyncDispose]();
  await daemon.client[Symbol.asyncDispose]();
  assert.equal((await daemon.ended()).code, 0, daemon.stderr);
  await using again = await Daemon.start(options);
  assert.equal((await again.client.content.info(background, digest)).size, 2 * bytes.length);
});

slowDiskTest(
  'SIGTERM lets a Prepare under way finish',
  async () => {
    await using disk = await SlowDisk.up();
    const options = { root: `${disk.path}/root`, snapshotter } as const;
    await using daemon = await Daemon.start(options);
    await using released = { [Symbol.asyncDispose]: () => disk.heal() };
    await disk.set({ hang: 'sync' });
    const prepared = daemon.client.snapshotter.prepare(background, 'under way', '', new Map());
    // An answer to a later request on the same connection: the Prepare has arrived.
    await daemon.client.serving();
    daemon.signal('SIGTERM');
    await disk.heal();
    assert.equal((await prepared).length, 1);
    assert.equal((await daemon.ended()).code, 0, daemon.stderr);
    await using again = await Daemon.start(options);
    assert.equal((await again.client.snapshotter.stat(background, 'under way')).kind, 'active');
    assert.ok(released);
  },
  60_000,
);
