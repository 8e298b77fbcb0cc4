import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { Labels } from '../../src/base/labels.ts';
import type { Calls } from '../../src/grpc/proxy/calls.ts';
import type { Daemon } from '../support/daemon.ts';
import { callsOf, inside, RPC } from './client.ts';

/** One thing as a client sees it, under a name as `content sha256:…`. */
interface Thing {
  readonly labels: Labels;
  readonly refersTo: readonly string[];
  readonly isRoot: boolean;
}

/** All that a client sees of one namespace. */
export type Seen = ReadonlyMap<string, Thing>;

const labelsOf = (labels: Readonly<Record<string, string>> | null | undefined): Labels =>
  new Map(Object.entries(labels ?? {}));

export async function look(daemon: Daemon, calls: Calls, namespace: string): Promise<Seen> {
  const ctx = inside(namespace);
  const { content, snapshotter } = daemon.client;
  const seen = new Map<string, Thing>();
  const { leases } = await calls.unary(ctx, RPC.listLeases, {});
  for (const { id, labels } of leases) {
    const { resources } = await calls.unary(ctx, RPC.listResources, { id: id ?? '' });
    const refersTo = resources.map((each) => `${each.type} ${each.id}`);
    seen.set(`leases ${id}`, { labels: labelsOf(labels), refersTo, isRoot: true });
  }
  const { images } = await calls.unary(ctx, RPC.listImages, {});
  for (const { name, labels, target } of images) {
    const refersTo = [`content ${target?.digest}`];
    seen.set(`images ${name}`, { labels: labelsOf(labels), refersTo, isRoot: true });
  }
  const { containers } = await calls.unary(ctx, RPC.listContainers, {});
  for (const { id, labels, snapshotKey } of containers) {
    const refersTo = [`snapshots/native ${snapshotKey}`];
    seen.set(`containers ${id}`, { labels: labelsOf(labels), refersTo, isRoot: true });
  }
  for await (const { digest, labels } of content.walk(ctx, [])) {
    const isRoot = labels.has('containerd.io/gc.root');
    seen.set(`content ${digest}`, { labels, refersTo: [], isRoot });
  }
  for await (const { name, parent, labels } of snapshotter.walk(ctx, [])) {
    const isRoot = labels.has('containerd.io/gc.root');
    const refersTo = parent === '' ? [] : [`snapshots/native ${parent}`];
    seen.set(`snapshots/native ${name}`, { labels, refersTo, isRoot });
  }
  // Those left behind were all begun under a lease.
  for (const { ref } of await content.statuses(ctx, [])) {
    seen.set(`ingests ${ref}`, { labels: new Map(), refersTo: [], isRoot: false });
  }
  return seen;
}

const REFERENCE = /^containerd\.io\/gc\.ref\.(?<type>content|snapshot\.native|image)(?=$|[./])/;
const BACK =
  /^containerd\.io\/gc\.bref\.(?<type>content|snapshot\.native|image|container)(?=$|[./])/;
const TYPES: Readonly<Record<string, string>> = {
  content: 'content',
  'snapshot.native': 'snapshots/native',
  image: 'images',
  container: 'containers',
};

const named = (labels: Labels, pattern: RegExp): string[] =>
  Array.from(labels, ([label, value]) => {
    const type = pattern.exec(label)?.groups?.['type'];
    return type === undefined ? '' : `${TYPES[type]} ${value}`;
  }).filter((name) => name !== '');

/** What is to be kept, by plain recursion; of names, also those of what is not there. */
export function reachable(seen: Seen): ReadonlySet<string> {
  const whole = new Set<string>();
  const kept = new Set<string>();
  const keep = (name: string, flat: boolean): void => {
    if (whole.has(name) || (flat && kept.has(name))) return;
    kept.add(name);
    if (!flat) whole.add(name);
    if (!flat) {
      for (const [other, { labels }] of seen) {
        if (!other.startsWith('leases ') && named(labels, BACK).includes(name)) keep(other, false);
      }
    }
    const thing = seen.get(name);
    if (thing === undefined) return;
    const isLease = name.startsWith('leases ');
    const isFlat = isLease ? thing.labels.has('containerd.io/gc.flat') : flat;
    for (const to of thing.refersTo) keep(to, isFlat);
    if (!isLease && !flat) for (const to of named(thing.labels, REFERENCE)) keep(to, false);
  };
  for (const [name, { isRoot }] of seen) if (isRoot) keep(name, false);
  return kept;
}

/**
 * The daemon rests. Nothing that is reachable misses what it refers to, as clients referred only to what
 * they kept; after one more collection exactly the reachable is there, and the disk holds just that.
 * @param roots of every namespace, what was acknowledged and not taken away
 */
export async function check(
  daemon: Daemon,
  root: string,
  roots: ReadonlyMap<string, ReadonlySet<string>>,
): Promise<void> {
  using calls = callsOf(daemon);
  const blobs = new Set<string>();
  let snapshots = 0;
  const expected = new Map<string, readonly string[]>();
  for (const [namespace, acknowledged] of roots) {
    const seen = await look(daemon, calls, namespace);
    const kept = reachable(seen);
    const missing = [...kept, ...acknowledged].filter((name) => !seen.has(name));
    // A killed daemon may have lost an ingest: it is resumable, not durable.
    expect(
      missing.filter((name) => !name.startsWith('ingests ')),
      namespace,
    ).toEqual([]);
    expected.set(namespace, [...seen.keys()].filter((name) => kept.has(name)).toSorted());
  }
  const ctx = inside('last');
  await calls.unary(ctx, RPC.createLease, { id: 'last' });
  await calls.unary(ctx, RPC.deleteLease, { id: 'last', sync: true });
  await daemon.client.snapshotter.cleanup(ctx);
  for (const [namespace, names] of expected) {
    const now = [...(await look(daemon, calls, namespace)).keys()].toSorted();
    expect(now, namespace).toEqual(names);
    for (const name of now) {
      if (name.startsWith('content sha256:')) blobs.add(name.slice('content sha256:'.length));
      if (name.startsWith('snapshots/')) snapshots++;
    }
  }
  expect((await readdir(join(root, 'content/blobs/sha256'))).toSorted()).toEqual(
    [...blobs].toSorted(),
  );
  expect(await readdir(join(root, 'snapshotters/native/snapshots'))).toHaveLength(snapshots);
}
