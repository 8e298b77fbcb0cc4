// The Mounts service. No containerd here has it (2.2 brought it): a client's calls meet a table of answers,
// which are what containerd's source says, and the kernel's own list of mounts.
import { readFileSync } from 'node:fs';
import {
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { isOpError, type ErrorCode } from '../../src/base/errors.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import type { containerd } from '../../src/grpc/gen/wire.js';
import type { Calls } from '../../src/grpc/proxy/calls.ts';
import type { Daemon } from '../support/daemon.ts';
import { run } from '../support/run.ts';
import { makeTemporaryRoot } from '../support/temporary.ts';
import { bind, rows, type Mount } from './mounts-table.ts';
import { callsOf, COLLECT, inside, RPC, startAlone } from './client.ts';

type Info = containerd.types.ActivationInfo.$Properties;

const here = inside('here');
const leased = inside('here', 'mine');

const mountsBelow = (folder: string): readonly string[] =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point.startsWith(`${folder}/`));

const loopsOn = async (folder: string): Promise<readonly string[]> => {
  const lines = await run('losetup', ['--noheadings', '--output', 'NAME,BACK-FILE']);
  return lines
    .split('\n')
    .filter((line) => line.includes(` ${folder}/`))
    .map((line) => line.split(' ')[0] ?? '');
};

/** A root that goes when the test ends, with whatever a failed one left mounted or attached in it. */
async function temporaryRoot(): Promise<string> {
  const root = await makeTemporaryRoot('mounts');
  onTestFinished(async () => {
    for (const point of mountsBelow(root).toReversed()) await run('umount', ['-l', point]);
    for (const device of await loopsOn(root)) await run('losetup', ['-d', device]);
    await rm(root, { recursive: true });
  });
  return root;
}

/** Without what is never the same. */
const shown = (info: Info | null | undefined): unknown => ({
  name: info?.name,
  active: info?.active?.map(({ mount, mountPoint, mountedAt }) => {
    expect(mountedAt?.seconds).toBeGreaterThan(1_600_000_000);
    return { type: mount?.type, source: mount?.source, options: mount?.options, mountPoint };
  }),
  system: info?.system?.map(({ type, source, target, options }) => ({
    type,
    source,
    target,
    options,
  })),
  labels: info?.labels,
});

const codeOf = async (answer: Promise<unknown>): Promise<ErrorCode | 'ok'> => {
  try {
    await answer;
    return 'ok';
  } catch (error) {
    if (isOpError(error)) return error.code;
    throw error;
  }
};

/** Two directories with a file each, and an ext4 file system in a file. */
async function prepareSources(root: string): Promise<void> {
  for (const name of ['a', 'b', 'upper', 'work']) await mkdir(join(root, name));
  await writeFile(join(root, 'a/one'), 'one');
  await writeFile(join(root, 'b/two'), 'two');
  await run('truncate', ['-s', '8M', join(root, 'image')]);
  await run('mkfs.ext4', ['-q', join(root, 'image')]);
}

test('each list of mounts comes to what the table says', async () => {
  const root = await temporaryRoot();
  await using daemon = await startAlone(root);
  using calls = callsOf(daemon);
  await prepareSources(root);
  await symlink('/', join(root, 'out'));
  const before = await readdir(join(root, 'mounts'));
  for (const { what, mounts, temporary = false, answer, files } of rows(root, '')) {
    const request = { name: what, mounts: [...mounts], temporary, labels: { a: 'b' } };
    if (typeof answer === 'string') {
      expect([what, await codeOf(calls.unary(here, RPC.activate, request))]).toEqual([
        what,
        answer,
      ]);
      expect([what, mountsBelow(root)]).toEqual([what, []]);
    } else {
      const { info } = await calls.unary(here, RPC.activate, request);
      const points = info?.active?.map(({ mountPoint }) => mountPoint ?? '') ?? [];
      const folder = (points[0] ?? '').replace(/\/0$/, '');
      const row = rows(root, folder).find((each) => each.what === what);
      expect([what, points.length, shown(info)]).toEqual([
        what,
        answer.active,
        expect.objectContaining({
          name: what,
          system: typeof row?.answer === 'object' ? row.answer.system : undefined,
          labels: { a: 'b' },
        }),
      ]);
      const { info: again } = await calls.unary(here, RPC.activation, { name: what });
      expect(shown(again)).toEqual(shown(info));
      if (files !== undefined) expect(await readdir(points.at(-1) ?? '')).toEqual(files);
      expect(await codeOf(calls.unary(here, RPC.activate, request))).toBe('AlreadyExists');
      await calls.unary(here, RPC.deactivate, { name: what });
    }
    expect([what, mountsBelow(root), await loopsOn(root)]).toEqual([what, [], []]);
  }
  expect(await readdir(join(root, 'mounts'))).toEqual(before);
  const work = await stat(join(root, 'made/work'));
  expect([work.mode & 0o777, work.uid, work.gid]).toEqual([0o700, 7, 8]);
  expect((await stat(join(root, 'made/upper'))).mode & 0o777).toBe(0o751);
});

test('the other calls answer as containerd’s', async () => {
  const root = await temporaryRoot();
  await using daemon = await startAlone(root);
  using calls = callsOf(daemon);
  await prepareSources(root);
  const list = async (...filters: readonly string[]): Promise<readonly unknown[]> =>
    (
      await Array.fromAsync(calls.serverStream(here, RPC.activations, { filters: [...filters] }))
    ).map(({ info }) => info?.name);
  const activate = (name: string, ctx = here): Promise<unknown> =>
    calls.unary(ctx, RPC.activate, {
      name,
      mounts: [bind(`${root}/a`, 'ro')],
      temporary: true,
      labels: { name, empty: '' },
    });
  expect(await list()).toEqual([]);
  const twice = await Promise.all([1, 2].map(() => codeOf(activate('second'))));
  expect(twice.toSorted()).toEqual(['AlreadyExists', 'ok']);
  await calls.unary(here, RPC.deactivate, { name: 'second' });
  for (const name of ['second', 'first', 'a/name of any kind\n']) await activate(name);
  expect(await list()).toEqual(['a/name of any kind\n', 'first', 'second']);
  expect(await list('name==first', 'labels.name==second')).toEqual(['first', 'second']);
  const point = mountsBelow(root).at(-1) ?? '';
  await expect(writeFile(join(point, 'x'), '')).rejects.toThrow(/EROFS/);
  const table: readonly (readonly [() => Promise<unknown>, ErrorCode])[] = [
    [() => activate(''), 'InvalidArgument'],
    [() => calls.unary(here, RPC.activation, { name: 'missing' }), 'NotFound'],
    [() => calls.unary(here, RPC.deactivate, { name: 'missing' }), 'NotFound'],
    [() => calls.unary(here, RPC.updateActivation, { info: { name: 'first' } }), 'Unimplemented'],
    [() => calls.unary(inside('other'), RPC.activation, { name: 'first' }), 'NotFound'],
    [() => calls.unary(inside(''), RPC.activation, { name: 'first' }), 'FailedPrecondition'],
    [() => calls.unary(here, RPC.deleteNamespace, { name: 'here' }), 'FailedPrecondition'],
    [() => activate('leased', leased), 'NotFound'],
  ];
  for (const [answer, code] of table) expect(await codeOf(answer())).toBe(code);
  for (const name of await list()) await calls.unary(here, RPC.deactivate, { name: String(name) });
  expect(mountsBelow(root)).toEqual([]);
  await calls.unary(here, RPC.deleteNamespace, { name: 'here' });
});

test('what is in use keeps its mounts, not its name, and goes with a later collection', async () => {
  const root = await temporaryRoot();
  await using daemon = await startAlone(root, COLLECT);
  using calls = callsOf(daemon);
  await prepareSources(root);
  const request = { name: 'busy', mounts: [bind(`${root}/a`)], temporary: true };
  const { info } = await calls.unary(here, RPC.activate, request);
  const point = info?.active?.[0]?.mountPoint ?? '';
  await run('mount', ['-t', 'tmpfs', 'x', join(root, 'b')]);
  const file = await open(join(point, 'one'));
  expect(await codeOf(calls.unary(here, RPC.deactivate, request))).toBe('FailedPrecondition');
  await file.close();
  expect(await codeOf(calls.unary(here, RPC.activation, request))).toBe('NotFound');
  await collect(calls);
  // Only what lies in our own folder goes.
  expect(mountsBelow(root)).toEqual([join(root, 'b')]);
});

/** The answer of a deletion with `sync` waits for a collection. */
async function collect(calls: Calls): Promise<void> {
  await calls.unary(here, RPC.createLease, { id: 'sync' });
  await calls.unary(here, RPC.deleteLease, { id: 'sync', sync: true });
}

async function activateAll(calls: Calls, root: string): Promise<void> {
  await calls.unary(here, RPC.createLease, { id: 'mine' });
  const target = { mediaType: 'x', digest: `sha256:${'a'.repeat(64)}`, size: 1 };
  for (const [name, labels] of [
    ['image', {}],
    ['referring', { 'containerd.io/gc.ref.mount.a': 'referred' }],
  ] as const) {
    await calls.unary(here, RPC.createImage, { image: { name, target, labels } });
  }
  const request = { mounts: [bind(`${root}/a`)], temporary: true };
  const labels = { 'containerd.io/gc.bref.image': 'image' };
  await calls.unary(leased, RPC.activate, { ...request, name: 'leased' });
  await calls.unary(here, RPC.activate, { ...request, name: 'back', labels });
  await calls.unary(here, RPC.activate, { ...request, name: 'referred' });
  await calls.unary(here, RPC.activate, { ...request, name: 'loose' });
}

test('activations are kept by leases and by references, forward and back', async () => {
  const root = await temporaryRoot();
  await using daemon = await startAlone(root, COLLECT);
  using calls = callsOf(daemon);
  await prepareSources(root);
  await activateAll(calls, root);
  const names = async (): Promise<unknown> =>
    (await Array.fromAsync(calls.serverStream(here, RPC.activations, {}))).map(
      ({ info }) => info?.name,
    );
  expect(await calls.unary(here, RPC.listResources, { id: 'mine' })).toMatchObject({
    resources: [],
  });
  await collect(calls);
  expect(await names()).toEqual(['back', 'leased', 'referred']);
  expect(mountsBelow(root)).toHaveLength(3);
  await calls.unary(here, RPC.deleteLease, { id: 'mine', sync: true });
  expect(await names()).toEqual(['back', 'referred']);
  await calls.unary(here, RPC.deleteImage, { name: 'referring', sync: true });
  await calls.unary(here, RPC.deleteImage, { name: 'image', sync: true });
  expect(await names()).toEqual([]);
  expect(mountsBelow(root)).toEqual([]);
  expect(await readdir(join(root, 'mounts'))).toEqual([]);
});

for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
  test(`mounts outlive a daemon that ends by ${signal}; what is not whole is dropped`, async () => {
    const root = await temporaryRoot();
    const first = await startAlone(root, COLLECT);
    await prepareSources(root);
    const lists: Readonly<Record<string, readonly Mount[]>> = {
      whole: [bind(`${root}/a`)],
      torn: [bind(`${root}/a`), bind(`${root}/b`)],
      device: [{ type: 'loop', source: `${root}/image` }],
      detached: [{ type: 'loop', source: `${root}/image` }],
    };
    const points = new Map<string, string>();
    {
      using calls = callsOf(first);
      await calls.unary(here, RPC.createLease, { id: 'mine' });
      for (const [name, mounts] of Object.entries(lists)) {
        const request = { name, mounts: [...mounts], temporary: true };
        const { info } = await calls.unary(leased, RPC.activate, request);
        points.set(name, info?.active?.[0]?.mountPoint ?? '');
      }
    }
    await first.stop(signal);
    expect(mountsBelow(root)).toHaveLength(3);
    await run('umount', [points.get('torn') ?? '']);
    await run('losetup', ['-d', await readlink(points.get('detached') ?? '')]);
    // A crash before the record.
    await mkdir(join(root, 'mounts/77/0'), { recursive: true });
    await run('mount', ['-t', 'tmpfs', 'x', join(root, 'mounts/77/0')]);
    await using daemon: Daemon = await startAlone(root, COLLECT);
    using calls = callsOf(daemon);
    await collect(calls);
    const names = await Array.fromAsync(calls.serverStream(here, RPC.activations, {}));
    expect(names.map(({ info }) => info?.name)).toEqual(['device', 'whole']);
    expect(mountsBelow(root)).toEqual([points.get('whole')]);
    expect(await readFile(join(points.get('whole') ?? '', 'one'), 'utf8')).toBe('one');
    expect(await loopsOn(root)).toEqual([await readlink(points.get('device') ?? '')]);
    // Numbers of folders are not used twice.
    const { info } = await calls.unary(leased, RPC.activate, {
      name: 'torn',
      mounts: [bind(`${root}/a`)],
      temporary: true,
    });
    expect(info?.active?.[0]?.mountPoint).toBe(join(root, 'mounts/78/0'));
    for (const name of ['torn', 'whole', 'device']) {
      await calls.unary(here, RPC.deactivate, { name });
    }
    expect([mountsBelow(root), await loopsOn(root)]).toEqual([[], []]);
  });
}

test('what is mounted below a source is seen, and stays mounted there', async () => {
  const root = await temporaryRoot();
  await using daemon = await startAlone(root);
  using calls = callsOf(daemon);
  const [source, below] = [join(root, 'source'), join(root, 'source/below')];
  await mkdir(source);
  // Shared: what is unmounted in a copy would be unmounted here too.
  await run('sh', [
    '-ec',
    'mount -t tmpfs x "$0"; mount --make-shared "$0"; mkdir "$1"',
    source,
    below,
  ]);
  await run('sh', ['-ec', 'mount -t tmpfs x "$0"; touch "$0/file"', below]);
  const request = { name: 'tree', mounts: [bind(source)], temporary: true };
  const { info } = await calls.unary(here, RPC.activate, request);
  expect(await readdir(join(info?.active?.[0]?.mountPoint ?? '', 'below'))).toEqual(['file']);
  await calls.unary(here, RPC.deactivate, request);
  expect(mountsBelow(root)).toEqual([source, below]);
});

test('a snapshot that is mounted for a client shows its files, also where a link leads to the root', async () => {
  const folder = await temporaryRoot();
  await mkdir(join(folder, 'root'));
  const root = join(folder, 'link');
  await symlink('root', root);
  await using daemon = await startAlone(root);
  using calls = callsOf(daemon);
  const { snapshotter } = daemon.client;
  const mounts = await snapshotter.prepare(here, 'work', '', NO_LABELS);
  const request = {
    name: '/mnt',
    mounts: mounts.map((mount) => ({ ...mount, options: [...mount.options] })),
  };
  // As ctr 2.2 asks first: it mounts by itself then.
  expect(await codeOf(calls.unary(here, RPC.activate, request))).toBe('Unimplemented');
  const options = [`X-containerd.mkdir.path=${root}/made`, 'rbind'];
  const { info } = await calls.unary(here, RPC.activate, {
    ...request,
    mounts: request.mounts.map((mount) => ({ ...mount, type: 'mkdir/bind', options })),
    temporary: true,
  });
  await stat(join(root, 'made'));
  await writeFile(join(info?.system?.[0]?.source ?? '', 'file'), 'bytes');
  await calls.unary(here, RPC.deactivate, request);
  expect(mountsBelow(folder)).toEqual([]);
  expect(await readFile(join(mounts[0]?.source ?? '', 'file'), 'utf8')).toBe('bytes');
});
