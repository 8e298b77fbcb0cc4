// What a client sees of a layer that is applied: memory, cancellation, descriptors, and a race against
// somebody who swaps directories and links in the tree meanwhile.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { on, once } from 'node:events';
import { watch } from 'node:fs';
import { mkdir, readdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { background, type RequestContext } from '../../src/base/context.ts';
import { digestOf, type Digest } from '../../src/base/digest.ts';
import { PLAIN_LAYER, type Descriptor } from '../../src/diff/diff.ts';
import type { Client } from '../support/client.ts';
import { Daemon, DRIVERS } from '../support/daemon.ts';
import { ownDirectory } from '../support/mounts.ts';
import { PATIENCE_MS, within } from '../support/patience.ts';
import { run } from '../support/run.ts';
import { END, rawEntry, rawHeader, rawPax, type RawHeader } from '../support/tar.ts';
import { repository, temporaryFolder } from '../support/temporary.ts';
import { inside as insideMounts, Site } from './site.ts';

/** How much more than an idle daemon one may need for a layer. */
const MEMORY_BYTES_MAX = 64 << 20;

const headers = (count: number, header: (n: number) => RawHeader): Buffer =>
  Buffer.concat([...Array.from({ length: count }, (_, n) => rawHeader(header(n))), END]);

/** Many empty files, so that there is a middle to be caught in. */
const manyFiles = (count: number, directory: (n: number) => string): Buffer =>
  headers(count, (n) => ({ name: `${directory(n)}/f${n}` }));

const sha256Of = (bytes: Buffer): Digest =>
  digestOf('sha256', createHash('sha256').update(bytes).digest('hex'));

async function upload(client: Client, bytes: Buffer, mediaType: string): Promise<Descriptor> {
  const digest = sha256Of(bytes);
  await using writer = await client.content.writer(background, `upload ${digest}`, {});
  for (let at = 0; at < bytes.length; at += 1 << 20) {
    await writer.write(at, Buffer.from(bytes.subarray(at, at + (1 << 20))));
  }
  await writer.commit(new Map());
  return { mediaType, digest, size: bytes.length };
}

const prepare = (client: Client, key: string) =>
  client.snapshotter.prepare(background, key, '', new Map());

const statusOf = async (pid: number, field: string): Promise<number> => {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)?.[1]) * 1024;
};

test('whether a blob is what its digest says is asked again where the config wants it', async () => {
  const plain = (text: string): Buffer =>
    Buffer.concat([rawEntry({ name: 'file' }, Buffer.from(text)), END]);
  for (const verify of ['foreign', 'all']) {
    await using folder = await temporaryFolder('verify');
    const root = join(folder.path, 'root');
    const socket = join(folder.path, 'ballast.sock');
    const file = join(folder.path, 'ballast.toml');
    await writeFile(
      file,
      `root = "${root}"
[plugin]
socket = "${socket}"
[snapshotter.ballast-native]
driver = "native"
[layers]
verify = "${verify}"
`,
    );
    await using daemon = await Daemon.start({
      root,
      socket,
      snapshotter: 'ballast-native',
      command: `${join(repository, 'bin/ballast')} serve --config ${file}`,
    });
    const { client } = daemon;
    const layer = await upload(client, plain('as it was'), PLAIN_LAYER);
    const blob = join(root, 'content/blobs', layer.digest.replace(':', '/'));
    await writeFile(blob, plain('as it is '));
    const mounts = await prepare(client, 'key');
    const applying = client.applier.apply(background, layer, mounts);
    if (verify === 'foreign') expect((await applying).digest).toBe(sha256Of(plain('as it is ')));
    else await expect(applying).rejects.toMatchObject({ code: 'DataLoss' });
    const [mount] = mounts;
    expect(await readdir(mount?.source ?? '')).toEqual(verify === 'foreign' ? ['file'] : []);
  }
});

test('zeros of 256 MiB, many files and many directories need no more memory than other layers', async () => {
  await using folder = await temporaryFolder('memory');
  await using daemon = await Daemon.start({ root: folder.path, snapshotter: 'overlayfs' });
  const { client, pid } = daemon;
  const zeros = Buffer.concat([rawEntry({ name: 'zeros' }, Buffer.alloc(256 << 20)), END]);
  const files = manyFiles(50_000, (n) => `d${n % 100}`);
  const directories = headers(100_000, (n) => ({ name: `directory number ${n}/`, type: '5' }));
  for (const [key, plain] of Object.entries({ zeros, files, directories })) {
    const layer = await upload(client, gzipSync(plain), `${PLAIN_LAYER}+gzip`);
    const mounts = await prepare(client, key);
    const idle = await statusOf(pid, 'VmRSS');
    await writeFile(`/proc/${pid}/clear_refs`, '5');
    await client.applier.apply(background, layer, mounts);
    const peak = await statusOf(pid, 'VmHWM');
    expect(peak - idle, `${key}: bytes above ${idle}`).toBeLessThan(MEMORY_BYTES_MAX);
  }
});

test('twelve layers one after another need no more memory than one', async () => {
  await using folder = await temporaryFolder('memory');
  await using daemon = await Daemon.start({ root: folder.path, snapshotter: 'overlayfs' });
  const { client, pid } = daemon;
  const zeros = Buffer.concat([rawEntry({ name: 'zeros' }, Buffer.alloc(32 << 20)), END]);
  const layer = await upload(client, gzipSync(zeros), `${PLAIN_LAYER}+gzip`);
  const idle = await statusOf(pid, 'VmRSS');
  for (let n = 0; n < 12; n++) {
    await client.applier.apply(background, layer, await prepare(client, `key ${n}`));
  }
  expect((await statusOf(pid, 'VmHWM')) - idle).toBeLessThan(MEMORY_BYTES_MAX);
});

test('a layer that is given up ends at once and leaves nothing: no file, no descriptor', async () => {
  await using folder = await temporaryFolder('cancel');
  await using daemon = await Daemon.start({ root: folder.path, snapshotter: 'overlayfs' });
  const { client, pid } = daemon;
  const files = manyFiles(100_000, (n) => `d${n % 10}`);
  const layer = await upload(client, files, PLAIN_LAYER);
  /** Of files in snapshots. */
  const descriptors = async () => {
    const fds = await readdir(`/proc/${pid}/fd`);
    const paths = await Promise.all(
      fds.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')),
    );
    return paths.filter((path) => path.includes('/snapshots/'));
  };
  const apply = async (key: string): Promise<void> => {
    const mounts = await prepare(client, key);
    const directory = ownDirectory(mounts);
    const controller = new AbortController();
    const ctx: RequestContext = { ...background, signal: controller.signal };
    const started = until(directory, (names) => names.length > 0);
    const applied = client.applier.apply(ctx, layer, mounts);
    applied.catch(() => undefined);
    await started;
    controller.abort();
    await expect(applied).rejects.toMatchObject({ code: 'Canceled' });
    // The client's end is not the daemon's.
    await until(directory, (names) => names.length === 0);
    await client.snapshotter.remove(background, key);
  };
  for (let n = 0; n < 5; n++) await apply(`given up ${n}`);
  // The last one's thread may be about to close them.
  const closed = async (): Promise<void> => {
    while ((await descriptors()).length > 0) await client.serving();
  };
  await within(PATIENCE_MS, 'closing what was opened in snapshots', closed());
});

async function until(directory: string, isMet: (names: readonly string[]) => boolean) {
  const watcher = watch(directory);
  // Keeps what happens while the directory is read.
  const changes = on(watcher, 'change');
  while (!isMet(await readdir(directory))) await changes.next();
  watcher.close();
}

/** Swaps the directory `x` and a link of that name to the outside, over and over, until it is killed. */
const SWAPPER = `
const { renameSync, symlinkSync, unlinkSync } = require('node:fs');
const [outside] = process.argv.slice(1);
for (let n = 0; ; n++) {
  try {
    renameSync('x', 'y');
    symlinkSync(outside, 'x');
    unlinkSync('x');
    renameSync('y', 'x');
  } catch {}
  if (n === 100) process.stdout.write('swapping');
}`;

test('whoever swaps a directory and a link to the outside while a layer is applied gains nothing', async () => {
  await using folder = await temporaryFolder('race');
  await using daemon = await Daemon.start({
    root: join(folder.path, 'root'),
    snapshotter: 'native',
  });
  const { client } = daemon;
  const outside = join(folder.path, 'outside');
  await mkdir(outside);
  // More directories than are kept open, so that x is looked for again and again.
  const files = manyFiles(10_000, (n) => `x/${n % 2000}`);
  const layer = await upload(client, files, PLAIN_LAYER);
  for (let round = 0; round < 3; round++) {
    const key = `race ${round}`;
    const mounts = await prepare(client, key);
    const tree = ownDirectory(mounts);
    await mkdir(join(tree, 'x'));
    const swapper = spawn(process.execPath, ['-e', SWAPPER, outside], { cwd: tree });
    await once(swapper.stdout, 'data');
    // It may well fail: what it looks for is gone now and then.
    await client.applier.apply(background, layer, mounts).catch(() => undefined);
    const exited = once(swapper, 'exit');
    swapper.kill('SIGKILL');
    await exited;
    await client.snapshotter.remove(background, key);
  }
  expect(await readdir(outside)).toEqual([]);
});

test('the usage of a layer so large that Commit does not measure it is right, also after a kill', async () => {
  await using folder = await temporaryFolder('usage');
  await using before = await Daemon.start({ root: folder.path, snapshotter: 'overlayfs' });
  const files = manyFiles(5_000, (n) => `d${n % 10}`);
  const layer = await upload(before.client, files, PLAIN_LAYER);
  for (const key of ['counted', 'key']) {
    await before.client.applier.apply(background, layer, await prepare(before.client, key));
  }
  await before.client.snapshotter.commit(background, 'as counted', 'counted', new Map(), '');
  // What Apply counted of the other one goes with the daemon.
  await using daemon = await before.restart('SIGTERM');
  const measured = await daemon.client.snapshotter.usage(background, 'key');
  expect(measured.inodes).toBe(5_011);
  await daemon.client.snapshotter.commit(background, 'name', 'key', new Map(), '');
  const expectUsages = async ({ client }: Daemon): Promise<void> => {
    expect(await client.snapshotter.usage(background, 'name')).toEqual(measured);
    expect(await client.snapshotter.usage(background, 'as counted')).toEqual(measured);
  };
  await using again = await daemon.restart('SIGKILL');
  await expectUsages(again);
  await using third = await again.restart('SIGTERM');
  await expectUsages(third);
});

/** One more user with rwx, for all that is made in a directory. struct posix_acl_xattr_header of linux/posix_acl_xattr.h */
const DEFAULT_ACL = Buffer.from(
  '0200000001000700ffffffff02000700d204000004000500ffffffff10000700ffffffff20000500ffffffff',
  'hex',
).toString('latin1');

for (const driver of DRIVERS) {
  test(`${driver}: directories of a group, or with default access lists, hand nothing down`, async () => {
    await using site = await Site.start(driver);
    const { client } = site.daemon;
    const shared = { name: 'd/', type: '5', mode: '0002775', gid: '0000144' };
    const listed = rawPax([['SCHILY.xattr.system.posix_acl_default', DEFAULT_ACL]]);
    const inside = (name: string): Buffer =>
      Buffer.concat([
        rawEntry({ name: `d/${name}` }, 'bytes'),
        rawEntry({ name: `d/${name}.sub/`, type: '5', mode: '0000755' }),
        rawEntry({ name: `d/${name}.fifo`, type: '6' }),
        rawEntry({ name: `d/${name}.implicit/file`, mode: '0000600' }),
      ]);
    const base = await upload(
      client,
      Buffer.concat([listed, rawEntry(shared), inside('one'), END]),
      PLAIN_LAYER,
    );
    const above = await upload(client, Buffer.concat([inside('two'), END]), PLAIN_LAYER);
    const top = await site.applied('', base, above);
    const tree = await insideMounts(await site.view(top), async (root) => ({
      files: (await run('find', [join(root, 'd'), '-printf', './%P %m %U:%G\\n']))
        .trim()
        .split('\n'),
      attributes: await run('getfattr', ['-R', '-h', '-m', 'posix_acl', join(root, 'd')]),
    }));
    const made = (name: string): string[] => [
      `./${name} 644 0:0`,
      `./${name}.fifo 644 0:0`,
      `./${name}.implicit 755 0:0`,
      `./${name}.implicit/file 600 0:0`,
      `./${name}.sub 755 0:0`,
    ];
    expect(tree.files.toSorted()).toEqual(['./ 2775 0:100', ...made('one'), ...made('two')]);
    expect(tree.attributes.match(/# file: .*|system.*/g)).toEqual([
      expect.stringMatching(/\/d$/),
      'system.posix_acl_default',
    ]);
  });
}
