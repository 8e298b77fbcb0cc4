// Namespaces see nothing of each other but, if they may, that a blob is there already.
import { createHash } from 'node:crypto';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { background, type RequestContext } from '../../src/base/context.ts';
import { parseDigest, type Digest } from '../../src/base/digest.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import type { ContentStore } from '../../src/content/content.ts';
import { Daemon } from '../support/daemon.ts';
import { repository, temporaryFolder } from '../support/temporary.ts';
import { callsOf, inside, RPC, startAlone, TARGET } from './client.ts';

const one = inside('one');
const two = inside('two');
const three = inside('three');

const BYTES = Buffer.from('bytes of a blob');
const DIGEST = parseDigest(`sha256:${createHash('sha256').update(BYTES).digest('hex')}`);
const announced = { total: BYTES.length, expected: DIGEST };

async function write(
  content: ContentStore,
  ctx: RequestContext,
  bytes: Uint8Array = BYTES,
  labels = NO_LABELS,
): Promise<Digest> {
  await using writer = await content.writer(ctx, 'ref', {});
  await writer.write(0, Buffer.from(bytes));
  return writer.commit(labels);
}

const digestsIn = async (content: ContentStore, ctx: RequestContext): Promise<readonly Digest[]> =>
  (await Array.fromAsync(content.walk(ctx, []))).map(({ digest }) => digest);

test('keys, refs, names and labels are those of one namespace', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path);
  using calls = callsOf(daemon);
  const { content, snapshotter } = daemon.client;
  for (const ctx of [one, two]) {
    const labels = new Map([['of', ctx.namespace ?? '']]);
    await snapshotter.prepare(ctx, 'key', '', labels);
    await write(content, ctx, BYTES, labels);
    const image = { name: 'image', target: TARGET, labels: Object.fromEntries(labels) };
    await calls.unary(ctx, RPC.createImage, { image });
    await calls.unary(ctx, RPC.createLease, { id: 'lease' });
  }
  await using held = await content.writer(one, 'same', {});
  await using other = await content.writer(two, 'same', {});
  expect([held.status().ref, other.status().ref]).toEqual(['same', 'same']);
  await expect(content.writer(two, 'same', {})).rejects.toMatchObject({ code: 'Unavailable' });
  for (const ctx of [one, two]) {
    const labels = new Map([['of', ctx.namespace ?? '']]);
    expect(await snapshotter.stat(ctx, 'key')).toMatchObject({ name: 'key', parent: '', labels });
    expect(await Array.fromAsync(snapshotter.walk(ctx, ['name==key']))).toHaveLength(1);
    expect(await content.info(ctx, DIGEST)).toMatchObject({ size: BYTES.length, labels });
  }
  await expect(snapshotter.prepare(three, 'x', 'key', NO_LABELS)).rejects.toMatchObject({
    code: 'NotFound',
    message: expect.stringContaining('"key"'),
  });
  await snapshotter.remove(one, 'key');
  await content.delete(one, DIGEST);
  await expect(content.info(one, DIGEST)).rejects.toMatchObject({ code: 'NotFound' });
  await expect(Array.fromAsync(content.read(one, DIGEST, 0, 0))).rejects.toMatchObject({
    code: 'NotFound',
  });
  expect((await snapshotter.stat(two, 'key')).kind).toBe('active');
  expect(Buffer.concat(await Array.fromAsync(content.read(two, DIGEST, 0, 0)))).toEqual(BYTES);
  expect(await readdir(join(root.path, 'content/blobs/sha256'))).toHaveLength(1);
});

test('shared: a digest is enough for what another namespace has', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path);
  const { content } = daemon.client;
  {
    await using begun = await content.writer(two, 'ref', announced);
    await begun.write(0, Buffer.from(BYTES.subarray(0, 5)));
  }
  await write(content, one);
  {
    await using writer = await content.writer(two, 'ref', announced);
    expect(writer.status()).toMatchObject({ offset: BYTES.length, digest: DIGEST });
    expect(await digestsIn(content, two)).toEqual([]);
    expect(await writer.commit(new Map([['a', 'b']]))).toBe(DIGEST);
  }
  expect((await content.info(two, DIGEST)).labels).toEqual(new Map([['a', 'b']]));
  expect(await content.statuses(two, [])).toEqual([]);
  // Writing to what is shared makes a copy of it.
  const more = Buffer.from(' and more');
  await using writer = await content.writer(three, 'ref', announced);
  await writer.write(BYTES.length, Buffer.from(more));
  const whole = Buffer.concat([BYTES, more]);
  const expected = parseDigest(`sha256:${createHash('sha256').update(whole).digest('hex')}`);
  await writer.announce({ total: whole.length, expected });
  expect(await writer.commit(NO_LABELS)).toBe(expected);
  expect(Buffer.concat(await Array.fromAsync(content.read(three, expected, 0, 0)))).toEqual(whole);
  expect(await digestsIn(content, three)).toEqual([expected]);
});

test('isolated: the bytes must come, unless a namespace shares what it has', async () => {
  await using root = await temporaryFolder('alone');
  const config = join(root.path, 'config.toml');
  const socket = join(root.path, 's.sock');
  await writeFile(
    config,
    `root = "${root.path}/root"
[standalone]
socket = "${socket}"
content_sharing = "isolated"
[snapshotter.native]
driver = "native"
`,
  );
  const command = `${join(repository, 'bin/ballast')} serve --config ${config}`;
  await using daemon = await Daemon.start({
    root: root.path,
    snapshotter: 'native',
    command,
    socket,
  });
  using calls = callsOf(daemon);
  const { content } = daemon.client;
  await write(content, one);
  {
    await using writer = await content.writer(two, 'ref', announced);
    expect(writer.status().offset).toBe(0);
    await expect(writer.commit(NO_LABELS)).rejects.toMatchObject({ code: 'FailedPrecondition' });
  }
  expect(await digestsIn(content, two)).toEqual([]);
  await content.abort(two, 'ref');
  {
    await using writer = await content.writer(two, 'ref', announced);
    await writer.write(0, Buffer.from(BYTES));
    await writer.commit(NO_LABELS);
  }
  expect(await digestsIn(content, two)).toEqual([DIGEST]);
  await calls.unary(background, RPC.updateNamespace, {
    namespace: { name: 'one', labels: { 'containerd.io/namespace.shareable': 'true' } },
  });
  await using writer = await content.writer(three, 'ref', announced);
  expect(writer.status().offset).toBe(BYTES.length);
  await writer.commit(NO_LABELS);
  expect(await digestsIn(content, three)).toEqual([DIGEST]);
});

test('what is made in a namespace makes it, and while anything is in it, it stays', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path);
  using calls = callsOf(daemon);
  const { content, snapshotter } = daemon.client;
  const refuses = (name: string, what: string): Promise<void> =>
    expect(calls.unary(background, RPC.deleteNamespace, { name })).rejects.toMatchObject({
      code: 'FailedPrecondition',
      message: expect.stringContaining(what),
    });
  await calls.unary(inside('a'), RPC.createImage, { image: { name: 'x', target: TARGET } });
  await refuses('a', 'images');
  await calls.unary(inside('b'), RPC.createLease, { id: 'x' });
  await refuses('b', 'leases');
  await write(content, inside('c'));
  await refuses('c', 'blobs');
  await snapshotter.prepare(inside('d'), 'x', '', NO_LABELS);
  await refuses('d', 'snapshots on "native" snapshotter');
  const { namespaces } = await calls.unary(background, RPC.listNamespaces, {});
  expect(namespaces.map(({ name }) => name)).toEqual(['a', 'b', 'c', 'd']);
  await snapshotter.remove(inside('d'), 'x');
  await calls.unary(background, RPC.deleteNamespace, { name: 'd' });
  await expect(calls.unary(background, RPC.deleteNamespace, { name: 'd' })).rejects.toMatchObject({
    code: 'NotFound',
  });
});
