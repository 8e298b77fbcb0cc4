// What was acknowledged is there after the daemon died, and a root stays with its kind of socket.
import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { parseDigest } from '../../src/base/digest.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import { Daemon } from '../support/daemon.ts';
import { repository, temporaryFolder } from '../support/temporary.ts';
import { callsOf, inside, RPC, startAlone, TARGET } from './client.ts';

const here = inside('here');
const leased = inside('here', 'lease');

test('records survive SIGKILL right after their answer', async () => {
  await using root = await temporaryFolder('alone');
  let daemon = await startAlone(root.path);
  const survives = async (): Promise<unknown> => {
    using calls = callsOf(daemon);
    const { content, snapshotter } = daemon.client;
    return {
      namespaces: await calls.unary(background, RPC.listNamespaces, {}),
      images: await calls.unary(here, RPC.listImages, {}),
      leases: await calls.unary(here, RPC.listLeases, {}),
      resources: await calls
        .unary(here, RPC.listResources, { id: 'lease' })
        .catch(() => 'no lease yet'),
      containers: await calls.unary(here, RPC.listContainers, {}),
      content: await Array.fromAsync(content.walk(here, [])),
      snapshots: await Array.fromAsync(snapshotter.walk(here, [])),
    };
  };
  const steps: readonly (() => Promise<unknown>)[] = [
    () => within((calls) => calls.unary(background, RPC.createNamespace, namespaceOf('made'))),
    () =>
      within((calls) => calls.unary(here, RPC.createLease, { id: 'lease', labels: { a: 'b' } })),
    () => within((calls) => calls.unary(leased, RPC.createImage, { image: imageOf('image') })),
    () =>
      within((calls) =>
        calls.unary(here, RPC.createContainer, {
          container: {
            id: 'container',
            labels: { a: 'b' },
            runtime: { name: 'runc', options: any([1]) },
            spec: any([0, 255]),
            extensions: { ['__proto__']: any([2]) },
          },
        }),
      ),
    () => daemon.client.snapshotter.prepare(leased, 'key', '', NO_LABELS),
    async () => {
      const bytes = Buffer.from('bytes');
      await using writer = await daemon.client.content.writer(leased, 'ref', {});
      await writer.write(0, Buffer.from(bytes));
      const digest = createHash('sha256').update(bytes).digest('hex');
      expect(await writer.commit(new Map([['a', 'b']]))).toBe(parseDigest(`sha256:${digest}`));
    },
    () => within((calls) => calls.unary(here, RPC.deleteImage, { name: 'image' })),
    () => within((calls) => calls.unary(background, RPC.deleteNamespace, { name: 'made' })),
  ];
  const within = <T>(work: (calls: ReturnType<typeof callsOf>) => Promise<T>): Promise<T> => {
    const calls = callsOf(daemon);
    return work(calls).finally(() => calls[Symbol.dispose]());
  };
  try {
    for (const step of steps) {
      const before = await survives();
      await step();
      const after = await survives();
      expect(after).not.toEqual(before);
      daemon = await daemon.restart('SIGKILL');
      expect(await survives()).toEqual(after);
    }
  } finally {
    await daemon[Symbol.asyncDispose]();
  }
});

test('a root serves the kind of socket that it began with', async () => {
  await using root = await temporaryFolder('alone');
  const flags = { root: root.path, snapshotter: 'native' };
  const refused = async (launching: Promise<Daemon>): Promise<string> => {
    await using daemon = await launching;
    expect((await daemon.ended()).code).toBe(1);
    return daemon.stderr;
  };
  await using daemon = await startAlone(root.path);
  const command = `${join(repository, 'bin/ballast')} serve --standalone {socket} --root {root}`;
  await daemon.stop('SIGTERM');
  expect(await refused(Daemon.launch(flags))).toMatch(
    /^ballast: root \S+ holds the stores of a standalone socket, .*choose another root\n$/m,
  );
  await using plugins = await temporaryFolder('plugins');
  await using other = await Daemon.start({ ...flags, root: plugins.path });
  await other.stop('SIGTERM');
  expect(await refused(Daemon.launch({ ...flags, root: plugins.path, command }))).toMatch(
    /^ballast: root \S+ holds the stores of a plugin socket, .*choose another root\n$/m,
  );
});

const namespaceOf = (name: string) => ({ namespace: { name, labels: { a: 'b' } } });
const imageOf = (name: string) => ({ name, target: TARGET, labels: { a: 'b' } });
const any = (bytes: readonly number[]) => ({ type_url: 'x', value: Uint8Array.from(bytes) });

test('a blob that was taken away is forgotten in every namespace', async () => {
  await using root = await temporaryFolder('alone');
  let daemon = await startAlone(root.path);
  try {
    const bytes = Buffer.from('bytes');
    const digest = parseDigest(`sha256:${createHash('sha256').update(bytes).digest('hex')}`);
    for (const ctx of [here, inside('there')]) {
      await using writer = await daemon.client.content.writer(ctx, 'ref', {});
      await writer.write(0, Buffer.from(bytes));
      await writer.commit(NO_LABELS);
    }
    await daemon.stop('SIGTERM');
    await rm(join(root.path, 'content/blobs/sha256', digest.slice('sha256:'.length)));
    daemon = await daemon.restart('SIGTERM');
    for (const ctx of [here, inside('there')]) {
      expect(await Array.fromAsync(daemon.client.content.walk(ctx, []))).toEqual([]);
    }
  } finally {
    await daemon[Symbol.asyncDispose]();
  }
});
