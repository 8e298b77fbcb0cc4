// A request's lease keeps what it makes, from the moment on that it is there.
import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { parseDigest } from '../../src/base/digest.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { callsOf, inside, RPC, startAlone, TARGET } from './client.ts';

const here = inside('here');
const leased = inside('here', 'mine');
const snapshot = (id: string): object => ({ type: 'snapshots/native', id });

test('content, ingests, snapshots and images are kept by the lease of who makes them', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path);
  using calls = callsOf(daemon);
  const { content, snapshotter } = daemon.client;
  await calls.unary(here, RPC.createLease, { id: 'mine' });
  const kept = async (): Promise<readonly object[]> => {
    const { resources } = await calls.unary(here, RPC.listResources, { id: 'mine' });
    return resources.map(({ type, id }) => ({ type, id }));
  };

  await snapshotter.prepare(here, 'unleased', '', NO_LABELS);
  await snapshotter.prepare(leased, 'work', '', NO_LABELS);
  expect(await kept()).toEqual([snapshot('work')]);
  await snapshotter.commit(leased, 'layer', 'work', NO_LABELS, '');
  expect(await kept()).toEqual([snapshot('layer')]);
  await snapshotter.view(leased, 'seen', 'layer', NO_LABELS);
  await snapshotter.remove(leased, 'seen');
  // Who is told that it is there goes on with it.
  await expect(snapshotter.prepare(leased, 'unleased', '', NO_LABELS)).rejects.toThrow();
  const target = new Map([['containerd.io/snapshot.ref', 'layer']]);
  await expect(snapshotter.prepare(here, 'again', '', target)).rejects.toMatchObject({
    code: 'AlreadyExists',
  });
  expect(await kept()).toEqual([snapshot('layer'), snapshot('unleased')]);
  await snapshotter.remove(leased, 'unleased');
  await snapshotter.remove(leased, 'layer');

  const bytes = Buffer.from('bytes');
  const digest = parseDigest(`sha256:${createHash('sha256').update(bytes).digest('hex')}`);
  {
    await using writer = await content.writer(leased, 'ref', {});
    await writer.write(0, Buffer.from(bytes));
    expect(await kept()).toEqual([{ type: 'ingests', id: 'ref' }]);
    await writer.commit(NO_LABELS);
  }
  expect(await kept()).toEqual([{ type: 'content', id: digest }]);
  await content.delete(leased, digest);
  expect(await kept()).toEqual([]);
  {
    await using writer = await content.writer(here, 'ref', {});
    await writer.write(0, Buffer.from(bytes));
    await writer.commit(NO_LABELS);
  }
  await expect(content.writer(leased, 'ref', { expected: digest })).rejects.toThrow();
  expect(await kept()).toEqual([{ type: 'content', id: digest }]);
  await content.delete(leased, digest);
  {
    await using writer = await content.writer(leased, 'left', {});
    await writer.write(0, Buffer.from(bytes));
  }
  expect(await kept()).toEqual([{ type: 'ingests', id: 'left' }]);
  await content.abort(leased, 'left');

  // An image keeps itself; only one that ends by itself needs more.
  await calls.unary(leased, RPC.createImage, { image: { name: 'a', target: TARGET } });
  const labels = { 'containerd.io/gc.expire': '2099-01-01T00:00:00Z' };
  await calls.unary(leased, RPC.createImage, { image: { name: 'b', target: TARGET, labels } });
  expect(await kept()).toEqual([{ type: 'images', id: 'b' }]);
  await calls.unary(leased, RPC.deleteImage, { name: 'b' });
  expect(await kept()).toEqual([]);
});
