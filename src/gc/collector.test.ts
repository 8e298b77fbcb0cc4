// What clients take up between the batches of a run stays, with all it refers to.
import { expect, test } from 'vitest';
import type { Clock } from '../base/clock.ts';
import type { MetadataStore } from '../metadata/metadata.ts';
import type { Collectible, Node, Vertex } from './collectible.ts';
import { Collector } from './collector.ts';

const clock: Clock = { now: () => 0n };
const blob = (key: string): Node => ({ type: 'content', namespace: 'here', key });

/** Blobs, each referring to later ones, and the one lease that keeps some. */
class Blobs implements Collectible {
  readonly type = 'content';
  readonly refersTo = new Map<string, readonly string[]>();

  *nodes(): Iterable<Node> {
    for (const key of this.refersTo.keys()) yield blob(key);
  }
  find(_namespace: string, key: string): Vertex | undefined {
    const refersTo = this.refersTo.get(key);
    if (refersTo === undefined) return undefined;
    const labels = new Map(
      refersTo.map((to, at) => [`containerd.io/gc.ref.content.${at}`, to] as const),
    );
    return { root: 'with gc.root', createdAt: 0n, labels, refersTo: [] };
  }
  discard(_tx: unknown, _namespace: string, key: string): () => undefined {
    this.refersTo.delete(key);
    return () => undefined;
  }
}

class Lease implements Collectible {
  readonly type = 'leases';
  readonly keys = new Set<string>();

  nodes(): readonly Node[] {
    return [{ type: this.type, namespace: 'here', key: 'lease' }];
  }
  find(): Vertex {
    const refersTo = Array.from(this.keys, blob);
    return { root: 'until gc.expire', createdAt: 0n, labels: new Map(), refersTo };
  }
  discard(): undefined {
    return undefined;
  }
}

/** @param between runs after each batch */
const metadataWith = (between: () => void): Pick<MetadataStore, 'update'> => ({
  update: async (change) => {
    const result = change({
      put: () => undefined,
      delete: () => undefined,
      keep: () => undefined,
      onRollback: () => undefined,
    });
    await new Promise((resolve) => setImmediate(resolve));
    between();
    return result;
  },
});

const COUNT = 3000;

test('a blob that is leased between two batches is there in the end, and what it refers to', async () => {
  const blobs = new Blobs();
  const lease = new Lease();
  for (let at = 0; at < COUNT; at++) {
    const later = [at * 2 + 1, at * 3 + 7].filter((to) => to < COUNT);
    blobs.refersTo.set(String(at), later.map(String));
  }
  let batches = 0;
  const metadata = metadataWith(() => {
    batches++;
    // From what is there, the one that would go last.
    const key = [...blobs.refersTo.keys()].findLast((each) => !lease.keys.has(each));
    if (key === undefined || batches > 5) return;
    lease.keys.add(key);
    const middle = String(1000 + batches);
    if (blobs.refersTo.has(middle)) lease.keys.add(middle);
    for (const each of lease.keys) collector.touch(blob(each));
  });
  const collector = new Collector({ metadata, clock });
  collector.add(blobs);
  collector.add(lease);
  const { removed } = await collector.run();
  expect(batches).toBeGreaterThan(5);
  expect(lease.keys.size).toBeGreaterThanOrEqual(5);
  expect(removed).toHaveLength(COUNT - blobs.refersTo.size);
  const kept = new Set<string>();
  const keep = (key: string): void => {
    kept.add(key);
    const refersTo = blobs.refersTo.get(key);
    expect(refersTo, `blob ${key}`).toBeDefined();
    for (const to of refersTo ?? []) keep(to);
  };
  for (const key of lease.keys) keep(key);
  await collector.run();
  expect([...blobs.refersTo.keys()].toSorted()).toEqual([...kept].toSorted());
});

test('what a request builds on is kept until it lets go', async () => {
  const blobs = new Blobs();
  blobs.refersTo.set('a', ['b']);
  blobs.refersTo.set('b', []);
  blobs.refersTo.set('c', []);
  const collector = new Collector({ metadata: metadataWith(() => undefined), clock });
  collector.add(blobs);
  {
    using _once = collector.hold(blob('a'));
    using _twice = collector.hold(blob('a'));
    await collector.run();
    expect([...blobs.refersTo.keys()]).toEqual(['a', 'b']);
  }
  await collector.run();
  expect(blobs.refersTo.size).toBe(0);
});

test('a run that is abandoned removes nothing more', async () => {
  const blobs = new Blobs();
  for (let at = 0; at < COUNT; at++) blobs.refersTo.set(String(at), []);
  const collector = new Collector({ metadata: metadataWith(() => collector.abandon()), clock });
  collector.add(blobs);
  await expect(collector.run()).rejects.toMatchObject({ code: 'Unavailable' });
  expect(blobs.refersTo.size).toBe(COUNT - 256);
});

test('a batch ends with its slice', async () => {
  class Slow extends Blobs {
    override discard(tx: unknown, namespace: string, key: string): () => undefined {
      for (const until = performance.now() + 3; performance.now() < until;);
      return super.discard(tx, namespace, key);
    }
  }
  const blobs = new Slow();
  for (let at = 0; at < 5; at++) blobs.refersTo.set(String(at), []);
  let batches = 0;
  const collector = new Collector({ metadata: metadataWith(() => batches++), clock });
  collector.add(blobs);
  const { removed, busyMs, longestMs } = await collector.run();
  expect(removed).toHaveLength(5);
  expect(batches).toBe(5);
  expect(longestMs).toBeGreaterThanOrEqual(3);
  expect(busyMs).toBeGreaterThanOrEqual(15);
});
