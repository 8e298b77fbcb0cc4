// On a full disk every creating call is refused and takes back what it did in memory; removals go on.
import { rm } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { isOpError } from '../../src/base/errors.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import { fill } from '../support/fill-disk.ts';
import { loopFileSystem } from '../support/loop-fs.ts';
import { callsOf, inside, RPC, startAlone, TARGET } from './client.ts';

const here = inside('here');
const leased = inside('here', 'lease');
const LABELS = { filling: 'x'.repeat(2000), 'containerd.io/gc.expire': '2099-01-01T00:00:00Z' };
const TRIES_MAX = 3000;

test('what a full disk refuses is not there, and what is there can be removed', async () => {
  await using disk = await loopFileSystem('ext4', 64);
  let daemon = await startAlone(`${disk.path}/root`);
  try {
    const state = async (): Promise<unknown> => {
      using calls = callsOf(daemon);
      const { content, snapshotter } = daemon.client;
      return {
        namespaces: await calls.unary(background, RPC.listNamespaces, {}),
        images: await calls.unary(here, RPC.listImages, {}),
        containers: await calls.unary(here, RPC.listContainers, {}),
        leases: await calls.unary(here, RPC.listLeases, {}),
        kept: await calls.unary(here, RPC.listResources, { id: 'lease' }),
        content: await Array.fromAsync(content.walk(here, [])),
        snapshots: await Array.fromAsync(snapshotter.walk(here, [])),
      };
    };
    {
      using calls = callsOf(daemon);
      await calls.unary(here, RPC.createLease, { id: 'lease' });
      await calls.unary(leased, RPC.createImage, { image: { name: 'kept', target: TARGET } });
      await fill(`${disk.path}/filler`);
      const { snapshotter, content } = daemon.client;
      const spec = { type_url: 'spec', value: new Uint8Array(2000) };
      const runtime = { name: 'runc' };
      const creating: readonly ((name: string) => Promise<unknown>)[] = [
        (name) =>
          calls.unary(background, RPC.createNamespace, { namespace: { name, labels: LABELS } }),
        (name) =>
          calls.unary(leased, RPC.createImage, { image: { name, target: TARGET, labels: LABELS } }),
        (name) => calls.unary(here, RPC.createLease, { id: name, labels: LABELS }),
        (name) =>
          calls.unary(here, RPC.createContainer, { container: { id: name, runtime, spec } }),
        (name) => snapshotter.prepare(leased, name, '', NO_LABELS),
        async (name) => {
          await using writer = await content.writer(leased, name, {});
          await writer.write(0, Buffer.alloc(30_000, name));
          await writer.commit(NO_LABELS);
        },
      ];
      for (const create of creating) {
        const before = await untilRefused(create, state);
        expect(await state()).toEqual(before);
      }
      await calls.unary(here, RPC.deleteImage, { name: 'kept' });
    }
    const left = await state();
    await rm(`${disk.path}/filler`);
    daemon = await daemon.restart('SIGKILL');
    expect(await state()).toEqual(left);
    using calls = callsOf(daemon);
    await calls.unary(here, RPC.createImage, { image: { name: 'kept', target: TARGET } });
  } finally {
    await daemon[Symbol.asyncDispose]();
  }
});

/** @returns the state before the call that was refused */
async function untilRefused(
  create: (name: string) => Promise<unknown>,
  state: () => Promise<unknown>,
): Promise<unknown> {
  for (let n = 0; n < TRIES_MAX; n++) {
    const before = await state();
    try {
      await create(`n${n}`);
    } catch (error) {
      if (!isOpError(error, 'ResourceExhausted')) throw error;
      return before;
    }
  }
  throw new Error('never refused');
}
