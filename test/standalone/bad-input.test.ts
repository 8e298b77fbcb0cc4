// What containerd refuses is refused with its code, and nothing has changed then.
import { createHash } from 'node:crypto';
import * as grpc from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { background, type RequestContext } from '../../src/base/context.ts';
import { parseDigest } from '../../src/base/digest.ts';
import type { ErrorCode } from '../../src/base/errors.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import type { Calls } from '../../src/grpc/proxy/calls.ts';
import type { Client } from '../support/client.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { callsOf, inside, RPC, startAlone, TARGET } from './client.ts';

interface Peer {
  readonly calls: Calls;
  readonly client: Client;
}

const here = inside('here');
const long = { key: 'x'.repeat(4094) };
const longLabels = new Map(Object.entries(long));
const spec = { type_url: 'spec', value: new Uint8Array([1]) };
const container = { id: 'first', runtime: { name: 'runc' }, spec };
const image = { name: 'first', target: TARGET };

const LAYER = {
  mediaType: 'application/vnd.oci.image.layer.v1.tar',
  digest: parseDigest(`sha256:${'b'.repeat(64)}`),
  size: 1,
};
const OTHERS_BYTES = Buffer.from('bytes');
const OTHERS = parseDigest(`sha256:${createHash('sha256').update(OTHERS_BYTES).digest('hex')}`);
/** No case gets so far as to write there. */
const WRITABLE = { type: 'bind', source: import.meta.dirname, options: ['rbind', 'rw'] };
const TREE = { type: 'bind', source: import.meta.dirname, options: ['rbind', 'ro'] };
const COMPARED = { mediaType: '', ref: '', labels: NO_LABELS, sourceDateEpoch: undefined };

type Case = readonly [what: string, code: ErrorCode, call: (peer: Peer) => Promise<unknown>];

const first = async (all: AsyncIterable<unknown>): Promise<void> => {
  for await (const one of all) void one;
};

/** Every namespaced service needs one. */
const namespacedCalls: readonly (readonly [
  string,
  (peer: Peer, ctx: RequestContext) => Promise<unknown>,
])[] = [
  ['images', ({ calls }, ctx) => calls.unary(ctx, RPC.listImages, {})],
  ['leases', ({ calls }, ctx) => calls.unary(ctx, RPC.listLeases, {})],
  ['containers', ({ calls }, ctx) => calls.unary(ctx, RPC.listContainers, {})],
  ['content', ({ client }, ctx) => first(client.content.walk(ctx, []))],
  ['a writer', ({ client }, ctx) => client.content.writer(ctx, 'ref', {})],
  ['snapshots', ({ client }, ctx) => first(client.snapshotter.walk(ctx, []))],
  ['a snapshot', ({ client }, ctx) => client.snapshotter.prepare(ctx, 'key', '', NO_LABELS)],
  ['Apply', ({ client }, ctx) => client.applier.apply(ctx, LAYER, [WRITABLE])],
  ['Diff', ({ client }, ctx) => client.comparer.compare(ctx, [], [TREE], COMPARED)],
  ['events', ({ calls }, ctx) => calls.unary(ctx, RPC.publish, { topic: '/x', event: spec })],
];

const cases: readonly Case[] = [
  ...namespacedCalls.flatMap(([what, call]): readonly Case[] => [
    [`${what} without a namespace`, 'FailedPrecondition', (peer) => call(peer, background)],
    [`${what} with a malformed one`, 'InvalidArgument', (peer) => call(peer, inside('a/b'))],
  ]),
  ...['', '-x', 'x'.repeat(77), 'a b'].map((name): Case => [
    `a namespace called ${JSON.stringify(name)}`,
    'InvalidArgument',
    ({ calls }) => calls.unary(background, RPC.createNamespace, { namespace: { name } }),
  ]),
  [
    'a namespace that is nowhere in the message',
    'InvalidArgument',
    ({ calls }) => calls.unary(background, RPC.createNamespace, {}),
  ],
  [
    "a namespace's label that is too long",
    'InvalidArgument',
    ({ calls }) =>
      calls.unary(background, RPC.createNamespace, { namespace: { name: 'n', labels: long } }),
  ],
  [
    "a namespace's name to be updated",
    'InvalidArgument',
    ({ calls }) =>
      calls.unary(background, RPC.updateNamespace, {
        namespace: { name: 'here' },
        updateMask: { paths: ['labels', 'name'] },
      }),
  ],
  [
    'a namespace with something in it to be deleted',
    'FailedPrecondition',
    ({ calls }) => calls.unary(background, RPC.deleteNamespace, { name: 'here' }),
  ],
  ...(
    [
      ['nowhere', undefined],
      ['without a target', { name: 'x' }],
      ['with an empty target', { name: 'x', target: {} }],
      ['without a name', { target: TARGET }],
      ['with no digest', { name: 'x', target: { ...TARGET, digest: 'sha256:1' } }],
      ['of no size', { name: 'x', target: { ...TARGET, size: 0 } }],
      ['without a media type', { name: 'x', target: { ...TARGET, mediaType: '' } }],
      ['with a label that is too long', { name: 'x', target: TARGET, labels: long }],
    ] as const
  ).map(([what, wrong]): Case => [
    `an image ${what}`,
    'InvalidArgument',
    ({ calls }) => calls.unary(here, RPC.createImage, wrong ? { image: { ...wrong } } : {}),
  ]),
  [
    "an image's field that is immutable, behind one that is not",
    'InvalidArgument',
    ({ calls }) =>
      calls.unary(here, RPC.updateImage, {
        image: { ...image, labels: { changed: 'yes' } },
        updateMask: { paths: ['labels', 'created_at'] },
      }),
  ],
  [
    'an image without a target where one is to be set',
    'InvalidArgument',
    ({ calls }) => calls.unary(here, RPC.updateImage, { image: { name: 'first' } }),
  ],
  [
    'an unknown filter of images',
    'InvalidArgument',
    ({ calls }) => calls.unary(here, RPC.listImages, { filters: ['name=first'] }),
  ],
  ...(
    [
      ['nowhere', undefined],
      ['with a malformed id', { ...container, id: 'a/b' }],
      ['without a runtime', { ...container, id: 'x', runtime: null }],
      ['without a spec', { ...container, id: 'x', spec: null }],
      ['with a snapshot of no snapshotter', { ...container, id: 'x', snapshotKey: 'key' }],
      ['with a label that is too long', { ...container, id: 'x', labels: long }],
      ['with an extension without a name', { ...container, id: 'x', extensions: { '': spec } }],
    ] as const
  ).map(([what, wrong]): Case => [
    `a container ${what}`,
    'InvalidArgument',
    ({ calls }) => calls.unary(here, RPC.createContainer, wrong ? { container: { ...wrong } } : {}),
  ]),
  [
    "a container's runtime to be changed",
    'InvalidArgument',
    ({ calls }) =>
      calls.unary(here, RPC.updateContainer, {
        container: { ...container, runtime: { name: 'another' } },
      }),
  ],
  [
    "a container's snapshotter to be changed by name",
    'InvalidArgument',
    ({ calls }) =>
      calls.unary(here, RPC.updateContainer, {
        container: { ...container, snapshotter: 'overlayfs' },
        updateMask: { paths: ['image', 'snapshotter'] },
      }),
  ],
  [
    "a snapshot's label that is too long",
    'InvalidArgument',
    ({ client }) => client.snapshotter.prepare(here, 'x', '', longLabels),
  ],
  [
    'a blob that only another namespace sees, to be applied',
    'NotFound',
    ({ client }) => client.applier.apply(here, { ...LAYER, digest: OTHERS }, [WRITABLE]),
  ],
  [
    'a parent with a child',
    'FailedPrecondition',
    ({ client }) => client.snapshotter.remove(here, 'base'),
  ],
  [
    'a snapshot under a lease that is not there',
    'NotFound',
    ({ client }) => client.snapshotter.prepare(inside('here', 'missing'), 'x', '', NO_LABELS),
  ],
  [
    'a writer under a lease that is not there',
    'NotFound',
    ({ client }) => client.content.writer(inside('here', 'missing'), 'x', {}),
  ],
  [
    'an image under a lease that is not there',
    'NotFound',
    ({ calls }) =>
      calls.unary(inside('here', 'missing'), RPC.createImage, {
        image: { name: 'x', target: TARGET },
      }),
  ],
  ...['', 'x', '/', '/x//y', '/x y'].map((topic): Case => [
    `an event with the topic ${JSON.stringify(topic)}`,
    'InvalidArgument',
    ({ calls }) => calls.unary(here, RPC.publish, { topic, event: spec }),
  ]),
  [
    'an event without a time',
    'InvalidArgument',
    ({ calls }) =>
      calls.unary(here, RPC.forward, { envelope: { namespace: 'here', topic: '/x', event: spec } }),
  ],
  [
    'an unknown filter of events',
    'InvalidArgument',
    ({ calls }) => first(calls.serverStream(here, RPC.subscribe, { filters: ['topic='] })),
  ],
];

test('of several namespaces in the headers the first counts', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path);
  using calls = callsOf(daemon);
  await calls.unary(here, RPC.createImage, { image: { ...image } });
  const client = new grpc.Client(`unix:${daemon.socket}`, grpc.credentials.createInsecure());
  const count = (...namespaces: readonly string[]): Promise<number> =>
    new Promise((resolve, reject) => {
      const metadata = new grpc.Metadata();
      for (const namespace of namespaces) metadata.add('containerd-namespace', namespace);
      client.makeUnaryRequest(
        RPC.listImages.path,
        () => Buffer.alloc(0),
        (bytes) => RPC.listImages.response.decode(bytes).images.length,
        {},
        metadata,
        (error, images) => (error === null ? resolve(images ?? 0) : reject(error)),
      );
    });
  try {
    expect(await count('here', 'there')).toBe(1);
    expect(await count('there', 'here')).toBe(0);
  } finally {
    client.close();
  }
});

test('bad input gets the code that containerd gives, and changes nothing', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path);
  using calls = callsOf(daemon);
  const peer = { calls, client: daemon.client };
  const { snapshotter, content } = daemon.client;
  await calls.unary(here, RPC.createImage, { image: { ...image } });
  await calls.unary(here, RPC.createContainer, { container: { ...container } });
  await snapshotter.prepare(here, 'work', '', NO_LABELS);
  await snapshotter.commit(here, 'base', 'work', NO_LABELS, '');
  await snapshotter.prepare(here, 'child', 'base', NO_LABELS);
  await calls.unary(here, RPC.createNamespace, { namespace: { name: 'other' } });
  await using writer = await content.writer(inside('other'), 'ref', {});
  await writer.write(0, Buffer.from(OTHERS_BYTES));
  await writer.commit(NO_LABELS);
  const state = async (): Promise<unknown> => ({
    namespaces: await calls.unary(background, RPC.listNamespaces, {}),
    images: await calls.unary(here, RPC.listImages, {}),
    containers: await calls.unary(here, RPC.listContainers, {}),
    leases: await calls.unary(here, RPC.listLeases, {}),
    snapshots: await Array.fromAsync(snapshotter.walk(here, [])),
    content: await Array.fromAsync(content.walk(here, [])),
    ingests: await content.statuses(here, []),
  });
  const before = await state();
  for (const [what, code, call] of cases) {
    const outcome = await call(peer).then(
      () => 'success',
      (error: unknown) => (error instanceof Error && 'code' in error ? error.code : error),
    );
    expect(`${what}: ${String(outcome)}`).toBe(`${what}: ${code}`);
  }
  expect(await state()).toEqual(before);
});
