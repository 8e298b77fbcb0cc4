// What is collected, and when: labels, leases, expiry, deletes that wait for it.
import { existsSync, watch } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parseDigest, type Digest } from '../../src/base/digest.ts';
import { isOpError } from '../../src/base/errors.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import type { Daemon } from '../support/daemon.ts';
import { PATIENCE_MS, within } from '../support/patience.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { callsOf, COLLECT, COLLECT_NOTHING, inside, RPC, startAlone } from './client.ts';

const here = inside('here');
const leased = inside('here', 'mine');

async function put(
  daemon: Daemon,
  ctx: ReturnType<typeof inside>,
  text: string,
  labels: Readonly<Record<string, string>> = {},
): Promise<Digest> {
  await using writer = await daemon.client.content.writer(ctx, `ref-${text}`, {});
  await writer.write(0, Buffer.from(text));
  return writer.commit(new Map(Object.entries(labels)));
}

const fileOf = (root: string, digest: Digest): string =>
  join(root, 'content/blobs/sha256', digest.slice('sha256:'.length));

async function contentOf(daemon: Daemon, namespace = 'here'): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const { digest } of daemon.client.content.walk(inside(namespace), [])) {
    found.push(digest);
  }
  return found.toSorted();
}

async function snapshotsOf(daemon: Daemon): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const { name } of daemon.client.snapshotter.walk(here, [])) found.push(name);
  return found.toSorted();
}

const imageOf = (name: string, digest: Digest, labels: Readonly<Record<string, string>> = {}) => ({
  image: { name, target: { mediaType: 'application/x', digest, size: 1 }, labels },
});

/** Resolves when the file is not there; without looking at it again and again. */
async function gone(path: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const watcher = watch(join(path, '..'), () => {
    if (!existsSync(path)) resolve();
  });
  try {
    if (existsSync(path)) await within(PATIENCE_MS, `the end of ${path}`, promise);
  } finally {
    watcher.close();
  }
}

test('an image keeps what its labels lead to; a delete that waits collects the rest', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path, COLLECT);
  using calls = callsOf(daemon);
  const { snapshotter } = daemon.client;
  await calls.unary(here, RPC.createLease, { id: 'mine' });
  await snapshotter.prepare(leased, 'work', '', NO_LABELS);
  await snapshotter.commit(leased, 'layer', 'work', NO_LABELS, '');
  await snapshotter.prepare(leased, 'work', 'layer', NO_LABELS);
  await snapshotter.commit(leased, 'upper', 'work', NO_LABELS, '');
  await snapshotter.prepare(leased, 'stray', 'upper', NO_LABELS);
  const layer = await put(daemon, leased, 'layer');
  const config = await put(daemon, leased, 'config', {
    'containerd.io/gc.ref.snapshot.native': 'upper',
  });
  const manifest = await put(daemon, leased, 'manifest', {
    'containerd.io/gc.ref.content.config': config,
    'containerd.io/gc.ref.content.l.0': layer,
  });
  const signature = await put(daemon, leased, 'signature', {
    'containerd.io/gc.bref.content': manifest,
  });
  const root1 = await put(daemon, leased, 'root', { 'containerd.io/gc.root': 'yes' });
  const stray = await put(daemon, leased, 'stray');
  await calls.unary(leased, RPC.createImage, imageOf('image', manifest));

  await calls.unary(here, RPC.deleteLease, { id: 'mine', sync: true });
  const kept = [layer, config, manifest, signature].toSorted();
  expect(await contentOf(daemon)).toEqual([...kept, root1].toSorted());
  expect(await snapshotsOf(daemon)).toEqual(['layer', 'upper']);
  expect(existsSync(fileOf(root.path, stray))).toBe(false);

  await calls.unary(here, RPC.deleteImage, { name: 'image', sync: true });
  expect(await contentOf(daemon)).toEqual([root1]);
  expect(await snapshotsOf(daemon)).toEqual([]);
  for (const digest of kept) expect(existsSync(fileOf(root.path, parseDigest(digest)))).toBe(false);
});

test('a flat lease keeps what it names, not what that refers to', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path, COLLECT);
  using calls = callsOf(daemon);
  const labels = { 'containerd.io/gc.flat': 'yes' };
  await calls.unary(here, RPC.createLease, { id: 'mine' });
  await calls.unary(here, RPC.createLease, { id: 'flat', labels });
  const child = await put(daemon, leased, 'child');
  const parent = await put(daemon, leased, 'parent', { 'containerd.io/gc.ref.content': child });
  await expect(
    daemon.client.content.writer(inside('here', 'flat'), 'x', { expected: parent }),
  ).rejects.toThrow();
  await calls.unary(here, RPC.deleteLease, { id: 'mine', sync: true });
  expect(await contentOf(daemon)).toEqual([parent]);
});

test('a blob that a writer of another namespace counts on stays, also when nobody sees it', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path, COLLECT);
  using calls = callsOf(daemon);
  const there = inside('there', 'mine');
  await calls.unary(here, RPC.createLease, { id: 'mine' });
  await calls.unary(there, RPC.createLease, { id: 'mine' });
  const digest = await put(daemon, leased, 'shared');
  await using writer = await daemon.client.content.writer(there, 'ref', { expected: digest });
  await calls.unary(here, RPC.deleteLease, { id: 'mine', sync: true });
  expect(await contentOf(daemon)).toEqual([]);
  expect(await writer.commit(NO_LABELS)).toBe(digest);
  expect(await contentOf(daemon, 'there')).toEqual([digest]);
  expect(existsSync(fileOf(root.path, digest))).toBe(true);
});

test('namespaces are apart: a blob stays on the disk until the last one lost it', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path, COLLECT);
  using calls = callsOf(daemon);
  const there = inside('there', 'mine');
  await calls.unary(here, RPC.createLease, { id: 'mine' });
  await calls.unary(there, RPC.createLease, { id: 'mine' });
  const digest = await put(daemon, leased, 'both');
  await put(daemon, there, 'both');
  await calls.unary(here, RPC.deleteLease, { id: 'mine', sync: true });
  expect(await contentOf(daemon)).toEqual([]);
  expect(await contentOf(daemon, 'there')).toEqual([digest]);
  expect(existsSync(fileOf(root.path, digest))).toBe(true);
  await calls.unary(there, RPC.deleteLease, { id: 'mine', sync: true });
  expect(existsSync(fileOf(root.path, digest))).toBe(false);
});

test('an ingest goes with its lease, and not while a writer has it', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path, COLLECT);
  using calls = callsOf(daemon);
  const { content } = daemon.client;
  await calls.unary(here, RPC.createLease, { id: 'mine' });
  await calls.unary(here, RPC.createLease, { id: 'other' });
  const refs = async (): Promise<readonly string[]> =>
    (await content.statuses(here, [])).map(({ ref }) => ref);
  {
    await using unleased = await content.writer(here, 'unleased', {});
    await unleased.write(0, Buffer.from('some'));
  }
  {
    await using writer = await content.writer(leased, 'left', {});
    await writer.write(0, Buffer.from('some'));
    await calls.unary(here, RPC.deleteLease, { id: 'mine', sync: true });
    expect(await refs()).toEqual(['left', 'unleased']);
  }
  await calls.unary(here, RPC.deleteLease, { id: 'other', sync: true });
  expect(await refs()).toEqual(['unleased']);
});

test('an idle daemon collects what expires, when it expires', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path, COLLECT);
  using calls = callsOf(daemon);
  const expiry = Date.now() + 1500;
  const labels = { 'containerd.io/gc.expire': new Date(expiry).toISOString() };
  await calls.unary(here, RPC.createLease, { id: 'mine', labels });
  const digest = await put(daemon, leased, 'for a while');
  const imaged = await put(daemon, leased, 'an image');
  await calls.unary(here, RPC.createImage, imageOf('image', imaged, labels));
  expect(existsSync(fileOf(root.path, digest))).toBe(true);
  await gone(fileOf(root.path, digest));
  await gone(fileOf(root.path, imaged));
  expect(Date.now()).toBeGreaterThanOrEqual(expiry);
  expect((await calls.unary(here, RPC.listLeases, {})).leases).toEqual([]);
  expect((await calls.unary(here, RPC.listImages, {})).images).toEqual([]);
});

test('what expired while the daemon was down goes after the start', async () => {
  await using root = await temporaryFolder('alone');
  let digest: Digest;
  {
    await using daemon = await startAlone(root.path);
    using calls = callsOf(daemon);
    const labels = { 'containerd.io/gc.expire': new Date(Date.now() - 1).toISOString() };
    await calls.unary(here, RPC.createLease, { id: 'mine', labels });
    digest = await put(daemon, leased, 'for a while');
  }
  await using daemon = await startAlone(root.path, COLLECT);
  await gone(fileOf(root.path, digest));
  expect(await contentOf(daemon)).toEqual([]);
});

test('without waiting, what is deleted is collected soon', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path, COLLECT);
  using calls = callsOf(daemon);
  await calls.unary(here, RPC.createLease, { id: 'mine' });
  const digest = await put(daemon, leased, 'bytes');
  const deleted = await put(daemon, leased, 'deleted');
  await calls.unary(here, RPC.deleteLease, { id: 'mine' });
  await gone(fileOf(root.path, digest));
  await gone(fileOf(root.path, deleted));
});

test('what is leased while a run is about to take it stays, with what it refers to', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path, COLLECT);
  using calls = callsOf(daemon);
  const { content } = daemon.client;
  const saving = inside('here', 'saving');
  await calls.unary(here, RPC.createLease, { id: 'mine' });
  await calls.unary(here, RPC.createLease, { id: 'saving' });
  // Several batches of them; each refers to one of its own.
  const pairs = await Promise.all(
    Array.from({ length: 900 }, async (_, index) => {
      const child = await put(daemon, leased, `child ${index}`);
      const labels = { 'containerd.io/gc.ref.content': child };
      return { child, parent: await put(daemon, leased, `parent ${index}`, labels) };
    }),
  );
  const collected = calls.unary(here, RPC.deleteLease, { id: 'mine', sync: true });
  const saved: (typeof pairs)[number][] = [];
  const isThere = async (pair: (typeof pairs)[number]): Promise<void> => {
    try {
      await using _ = await content.writer(saving, `saving ${pair.parent}`, {
        expected: pair.parent,
      });
    } catch (error) {
      if (!isOpError(error, 'AlreadyExists')) throw error;
      saved.push(pair);
    }
  };
  // From both ends, as nobody knows in which order they go.
  for (let at = 0; at < pairs.length / 2; at += 10) {
    const some = [...pairs.slice(at, at + 10), ...pairs.slice(-at - 10, pairs.length - at)];
    await Promise.all(some.map(isThere));
  }
  await collected;
  const now = new Set(await contentOf(daemon));
  process.stdout.write(`leased meanwhile: ${saved.length} of ${pairs.length}\n`);
  const lost = saved.filter(({ parent, child }) => !now.has(parent) || !now.has(child));
  expect(lost).toEqual([]);
  for (const { parent } of saved) expect(existsSync(fileOf(root.path, parent))).toBe(true);
}, 60_000);

test('a delete that waits for a collection ends with its client, and does not hold up the daemon’s end', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path, COLLECT_NOTHING);
  using calls = callsOf(daemon);
  await calls.unary(here, RPC.createLease, { id: 'mine' });
  const leaving = new AbortController();
  const gone = { ...here, signal: leaving.signal };
  const waiting = calls.unary(gone, RPC.deleteLease, { id: 'mine', sync: true });
  const ended = expect(waiting).rejects.toMatchObject({ code: 'Canceled' });
  // It has begun to wait when the lease is not there.
  while ((await calls.unary(here, RPC.listLeases, {})).leases.length > 0);
  leaving.abort();
  await ended;
  expect((await daemon.stop('SIGTERM')).code).toBe(0);
}, 60_000);
