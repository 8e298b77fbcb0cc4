// A lease that keeps thousands of things, more than one batch of the records holds.
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../../test/support/temporary.ts';
import type { Clock } from '../base/clock.ts';
import { background, type RequestContext } from '../base/context.ts';
import type { GcNotes } from '../gc/collectible.ts';
import { JournaledStore } from '../metadata/journaled-store.ts';
import type { MetadataStore } from '../metadata/metadata.ts';
import type { NamespaceBook } from '../namespaces/namespace.ts';
import { LocalLeaseManager } from './store.ts';

const clock: Clock = { now: () => 0n };
const ctx: RequestContext = { ...background, namespace: 'here' };
const gc: GcNotes = {
  touch: () => undefined,
  hold: () => ({ [Symbol.dispose]: () => undefined }),
  freed: () => undefined,
};
const namespaces: NamespaceBook = {
  has: () => true,
  ensure: () => undefined,
  labelsOf: () => new Map(),
  addOccupant: () => undefined,
};

const openStore = (folder: string): Promise<JournaledStore> =>
  JournaledStore.open({
    path: join(folder, 'metadata'),
    journal: join(folder, 'journal'),
    reserve: join(folder, 'reserve'),
    used: false,
    bytes: { flush: async () => undefined, restore: async () => undefined },
    onFatal: (error) => {
      throw error;
    },
  });

const openLeases = (metadata: MetadataStore): Promise<LocalLeaseManager> =>
  LocalLeaseManager.open({ metadata, namespaces, gc, clock });

/** Of leases and of what they keep. */
async function recordsOf(metadata: MetadataStore): Promise<number> {
  let count = 0;
  for await (const _record of metadata.scan('lease')) count++;
  return count;
}

/** A record of these is larger than a batch may be. */
const COUNT = 3000;
const image = (at: number) => ({ type: 'images', id: `${at}/${'x'.repeat(1000)}` });

async function makeLease(leases: LocalLeaseManager): Promise<void> {
  await leases.create(ctx, 'large', new Map());
  await Promise.all(
    Array.from({ length: COUNT }, (_none, at) => leases.addResource(ctx, 'large', image(at))),
  );
}

test('goes whole, and leaves nothing', async () => {
  await using folder = await temporaryFolder('leases');
  await using metadata = await openStore(folder.path);
  const leases = await openLeases(metadata);
  await makeLease(leases);
  expect(await recordsOf(metadata)).toBe(COUNT + 1);
  await leases.delete(ctx, 'large');
  expect(await recordsOf(metadata)).toBe(0);
  await makeLease(leases);
  const discarded = await metadata.update((tx) => leases.discard(tx, 'here', 'large'));
  await discarded?.();
  expect(await recordsOf(metadata)).toBe(0);
});

test('a crash after its first batch: it is gone, and one of its name begins empty', async () => {
  await using folder = await temporaryFolder('leases');
  {
    await using metadata = await openStore(folder.path);
    const leases = await openLeases(metadata);
    await makeLease(leases);
    const { promise: died, resolve: die } = Promise.withResolvers<void>();
    const update = metadata.update.bind(metadata);
    metadata.update = async (change, options) => {
      const result = await update(change, options);
      die();
      await new Promise<never>(() => undefined);
      return result;
    };
    leases.delete(ctx, 'large').catch(() => undefined);
    await died;
  }
  await using metadata = await openStore(folder.path);
  expect(await recordsOf(metadata)).toBeGreaterThan(COUNT / 2);
  const leases = await openLeases(metadata);
  expect(await recordsOf(metadata)).toBe(0);
  expect(await leases.list(ctx, [])).toEqual([]);
  await leases.create(ctx, 'large', new Map());
  expect(await leases.listResources(ctx, 'large')).toEqual([]);
});

test('one of the same name waits until nothing is left of it', async () => {
  await using folder = await temporaryFolder('leases');
  {
    await using metadata = await openStore(folder.path);
    const leases = await openLeases(metadata);
    await makeLease(leases);
    const deleted = leases.delete(ctx, 'large');
    const made = leases.create(ctx, 'large', new Map());
    await made;
    await leases.addResource(ctx, 'large', image(COUNT - 1));
    await deleted;
  }
  await using metadata = await openStore(folder.path);
  const leases = await openLeases(metadata);
  expect(await leases.listResources(ctx, 'large')).toEqual([image(COUNT - 1)]);
});
