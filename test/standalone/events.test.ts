// Events reach everyone who listens, in all namespaces, as far as their filters let them.
import { expect, test } from 'vitest';
import { NO_LABELS } from '../../src/base/labels.ts';
import { containerd } from '../../src/grpc/gen/wire.js';
import type { Calls } from '../../src/grpc/proxy/calls.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { callsOf, inside, RPC, startAlone, TARGET } from './client.ts';

type Envelope = InstanceType<typeof containerd.types.Envelope>;

const here = inside('here');
const event = { type_url: 'some.Type', value: Buffer.from([1, 2, 3]) };

/**
 * What a listener with these filters hears of `work`, in order. Nothing says that it listens now, so it
 * is told of a start until it has heard of it, and then of an end.
 */
async function heardOf(
  calls: Calls,
  filters: readonly string[],
  work: () => Promise<unknown>,
): Promise<readonly Envelope[]> {
  const all = [...filters, 'topic~=|^/mark/|'];
  const heard: Envelope[] = [];
  const started = Promise.withResolvers<void>();
  const listening = (async () => {
    for await (const envelope of calls.serverStream(here, RPC.subscribe, { filters: all })) {
      started.resolve();
      if (envelope.topic === '/mark/end') return;
      if (envelope.topic !== '/mark/start') heard.push(envelope);
    }
  })();
  let isStarted = false;
  const begun = Promise.race([started.promise, listening]).finally(() => (isStarted = true));
  while (!isStarted) await calls.unary(here, RPC.publish, { topic: '/mark/start', event });
  await begun;
  await work();
  await calls.unary(here, RPC.publish, { topic: '/mark/end', event });
  await listening;
  return heard;
}

test('clients publish and forward; who listens gets what passes a filter', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path);
  using calls = callsOf(daemon);
  const forwarded = {
    timestamp: { seconds: 5, nanos: 7 },
    namespace: 'elsewhere',
    topic: '/their/own',
    event,
  };
  const heard = await heardOf(calls, ['topic=="/mine/own"', 'namespace==elsewhere'], async () => {
    await calls.unary(here, RPC.publish, { topic: '/mine/own', event });
    await calls.unary(here, RPC.publish, { topic: '/mine/other', event });
    await calls.unary(here, RPC.forward, { envelope: forwarded });
  });
  expect(heard).toMatchObject([{ namespace: 'here', topic: '/mine/own', event }, forwarded]);
});

test('what the daemon does, it tells once it is done, by the names of containerd', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path);
  using calls = callsOf(daemon);
  const { content, snapshotter } = daemon.client;
  const spec = { type_url: 'spec', value: new Uint8Array() };
  const container = { id: 'c', runtime: { name: 'runc' }, spec };
  const image = { name: 'image', target: TARGET, labels: { a: 'b' } };
  const heard = await heardOf(calls, ['topic~=|^/|'], async () => {
    await calls.unary(here, RPC.createNamespace, { namespace: { name: 'n' } });
    await calls.unary(here, RPC.updateNamespace, { namespace: { name: 'n', labels: { a: 'b' } } });
    await calls.unary(here, RPC.deleteNamespace, { name: 'n' });
    await calls.unary(here, RPC.createImage, { image });
    await calls.unary(here, RPC.createImage, { image }).catch(() => undefined);
    await calls.unary(here, RPC.updateImage, { image });
    await calls.unary(here, RPC.deleteImage, { name: 'image' });
    await calls.unary(here, RPC.createContainer, { container });
    await calls.unary(here, RPC.updateContainer, { container });
    await snapshotter.prepare(here, 'key', '', NO_LABELS);
    await snapshotter.commit(here, 'layer', 'key', NO_LABELS, '');
    await snapshotter.view(here, 'seen', 'layer', NO_LABELS);
    await snapshotter.remove(here, 'seen');
    await using writer = await content.writer(here, 'ref', {});
    await writer.write(0, Buffer.from('bytes'));
    await content.delete(here, await writer.commit(NO_LABELS));
  });
  expect(
    heard.map(({ namespace, topic, event: told }) => [namespace, topic, told?.type_url]),
  ).toEqual([
    ['n', '/namespaces/create', 'containerd.events.NamespaceCreate'],
    ['n', '/namespaces/update', 'containerd.events.NamespaceUpdate'],
    ['n', '/namespaces/delete', 'containerd.events.NamespaceDelete'],
    ['here', '/images/create', 'containerd.services.images.v1.ImageCreate'],
    ['here', '/images/update', 'containerd.services.images.v1.ImageUpdate'],
    ['here', '/images/delete', 'containerd.services.images.v1.ImageDelete'],
    ['here', '/containers/create', 'containerd.events.ContainerCreate'],
    ['here', '/containers/update', 'containerd.events.ContainerUpdate'],
    ['here', '/snapshot/prepare', 'containerd.events.SnapshotPrepare'],
    ['here', '/snapshot/commit', 'containerd.events.SnapshotCommit'],
    ['here', '/snapshot/remove', 'containerd.events.SnapshotRemove'],
    ['here', '/content/create', 'containerd.events.ContentCreate'],
    ['here', '/content/delete', 'containerd.events.ContentDelete'],
  ]);
  const created = heard.find(({ topic }) => topic === '/images/create')?.event?.value;
  const { ImageCreate } = containerd.services.images.v1;
  expect(ImageCreate.decode(created ?? new Uint8Array())).toMatchObject({
    name: 'image',
    labels: { a: 'b' },
  });
});

test('our own events are filtered by their fields', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path);
  using calls = callsOf(daemon);
  const filters = ['topic=="/images/create",event.name==second', 'event.labels.of==third'];
  const heard = await heardOf(calls, filters, async () => {
    for (const name of ['first', 'second', 'third']) {
      const image = { name, target: TARGET, labels: { of: name } };
      await calls.unary(here, RPC.createImage, { image });
    }
  });
  expect(heard).toHaveLength(2);
});

test('events of clients are filtered by their fields too, as far as containerd knows their types', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path);
  using calls = callsOf(daemon);
  const { TaskCreate, TaskExit, ContainerUpdate } = containerd.events;
  const exit = TaskExit.encode({ containerId: 'c', id: 'exec', exitStatus: 7 }).finish();
  const create = TaskCreate.encode({ containerId: 'd', io: { stdout: '/out', terminal: true } });
  const update = ContainerUpdate.encode({ id: 'e', snapshotKey: 'key', labels: { 'a.b': 'c' } });
  const events = [
    { type_url: 'containerd.events.TaskExit', value: exit },
    { type_url: 'types.googleapis.com/containerd.events.TaskCreate', value: create.finish() },
    { type_url: 'containerd.events.ContainerUpdate', value: update.finish() },
    { type_url: 'containerd.events.TaskExit', value: Buffer.from([0xff]) },
    { type_url: 'own.TaskExit', value: exit },
  ];
  const table: readonly (readonly [filter: string, heard: readonly number[]])[] = [
    ['event.container_id==c', [0]],
    ['event.container_id', [0, 1]],
    ['event.id~=e', [0, 2]],
    ['event.exit_status', []],
    ['event.io.stdout=="/out"', [1]],
    ['event.io.terminal==true', [1]],
    ['event.io.stdin', []],
    ['event.rootfs', []],
    ['event.snapshot_key==key,event.labels.a.b==c', [2]],
    ['event.labels.constructor', []],
    ['event.constructor.name', []],
  ];
  for (const [filter, expected] of table) {
    const heard = await heardOf(calls, [filter], async () => {
      for (const [index, each] of events.entries()) {
        await calls.unary(here, RPC.publish, { topic: `/n/${index}`, event: each });
      }
    });
    expect([filter, heard.map(({ topic }) => Number(topic.slice(3)))]).toEqual([filter, expected]);
  }
});
