// Clients leave behind what is kept and what is not. What `why` says of each thing is what the next run does to it,
// and a plan is that run: object by object, byte by byte, also when an image or a lease goes first.
import { readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { RequestContext } from '../../src/base/context.ts';
import type { Digest } from '../../src/base/digest.ts';
import { isOpError } from '../../src/base/errors.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import type { ContentStore } from '../../src/content/content.ts';
import type { Explanation, Goes, Kept, Totals } from '../../src/gc/gc.ts';
import type { Calls } from '../../src/grpc/proxy/calls.ts';
import { GcProxy } from '../../src/grpc/proxy/gc.ts';
import type { Daemon } from '../support/daemon.ts';
import { Random, testSeed } from '../support/random.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { callsOf, COLLECT, COLLECT_WHEN_ASKED, inside, RPC, startAlone } from './client.ts';
import { actorsOf, NAMESPACES, noRoots } from './gc-actor.ts';
import { look } from './gc-model.ts';

const ROUNDS = 4;
/** More of them until there was something of everything. */
const ROUNDS_MAX = 40;

interface Plan {
  readonly goes: readonly Goes[];
  readonly totals: Totals;
  readonly without: readonly Kept[];
}

async function planOf(gc: GcProxy, namespace: string, ...names: readonly string[]): Promise<Plan> {
  const goes: Goes[] = [];
  for await (const part of gc.plan(inside(namespace), names)) {
    if ('totals' in part) return { goes, ...part };
    goes.push(...part.goes);
  }
  throw new Error('a plan without an end');
}

const nameOf = ({ node: { namespace, type, key } }: Pick<Goes, 'node'>): string =>
  `${namespace} ${type} ${key}`;
const sum = (goes: readonly Goes[], type = ''): number =>
  goes.filter(({ node }) => node.type.startsWith(type)).reduce((all, { bytes }) => all + bytes, 0);
const sorted = (totals: Totals): unknown => [...totals].toSorted(([a], [b]) => (a < b ? -1 : 1));

/** Everything that any namespace has, as `NAMESPACE TYPE KEY`. */
async function everything(daemon: Daemon, calls: Calls): Promise<ReadonlySet<string>> {
  const names = new Set<string>();
  for (const namespace of NAMESPACES) {
    for (const name of (await look(daemon, calls, namespace)).keys())
      names.add(`${namespace} ${name}`);
  }
  return names;
}

async function blobBytes(root: string): Promise<number> {
  const folder = join(root, 'content/blobs/sha256');
  const files = await Promise.all((await readdir(folder)).map((name) => stat(join(folder, name))));
  return files.reduce((all, { size }) => all + size, 0);
}

/** What `why` says of everything: its names, and whether it is kept. */
async function explained(
  gc: GcProxy,
  names: ReadonlySet<string>,
): Promise<ReadonlyMap<string, boolean>> {
  const kept = new Map<string, boolean>();
  for (const name of names) {
    const [namespace = '', type, ...key] = name.split(' ');
    for await (const { node, chains } of gc.why(inside(namespace), key.join(' '))) {
      if (node.type === type) kept.set(name, chains.length > 0);
    }
  }
  return kept;
}

test('why and plan say what the next run does', async () => {
  const seed = testSeed();
  process.stdout.write(`gc: BALLAST_SEED=${seed}\n`);
  const random = new Random(seed);
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path, COLLECT_WHEN_ASKED);
  using calls = callsOf(daemon);
  const gc = new GcProxy(calls);
  const seen = { kept: 0, gone: 0, shared: 0, unique: 0, below: 0 };
  const unseen = (): boolean => Object.values(seen).includes(0);
  for (let round = 0; round < ROUNDS || (unseen() && round < ROUNDS_MAX); round++) {
    const actors = actorsOf(`r${round}`, random, { daemon, calls, roots: noRoots(), sync: 0 });
    await Promise.all(
      actors.map(async (actor) => {
        for (let n = 0; n < 6; n++) await actor.work();
      }),
    );
    await writeInto(daemon, random);
    await deleteBlob(daemon, random);
    // As if it were gone, and then it is.
    const now = await planOf(gc, 'one');
    const subject = await subjectOf(calls, random);
    if (subject !== undefined) {
      const without = await planOf(gc, subject.namespace, subject.key);
      const [kept] = without.without;
      if (kept === undefined) throw new Error('nothing is said of what is left out');
      expect(kept.node).toEqual({ ...subject });
      expect(kept.unique).toBe(sum(without.goes) - sum(now.goes));
      seen.unique += kept.unique;
      seen.shared += kept.shared;
      await remove(calls, subject);
      const names = (plan: Plan): readonly string[] => plan.goes.map(nameOf).toSorted();
      const after = await planOf(gc, 'one');
      expect(names(without)).toEqual(names(after));
      expect(sorted(without.totals)).toEqual(sorted(after.totals));
    }

    const plan = await planOf(gc, 'one');
    const before = await everything(daemon, calls);
    const kept = await explained(gc, before);
    expect(kept.size).toBe(before.size);
    const sizes = new Map<string, number>();
    for (const { node } of plan.goes) {
      if (!node.type.startsWith('snapshots/')) continue;
      const { size } = await daemon.client.snapshotter.usage(inside(node.namespace), node.key);
      sizes.set(nameOf({ node }), size);
    }
    const bytes = await blobBytes(root.path);

    const { totals } = await gc.run(inside('one'));
    const left = await everything(daemon, calls);
    const gone = [...before.difference(left)].toSorted();
    expect(
      plan.goes
        .filter(({ node }) => node.namespace !== '')
        .map(nameOf)
        .toSorted(),
    ).toEqual(gone);
    expect([...before].filter((name) => kept.get(name) === false).toSorted()).toEqual(gone);
    expect(sorted(totals)).toEqual(sorted(plan.totals));
    expect(sum(plan.goes, 'content')).toBe(bytes - (await blobBytes(root.path)));
    for (const each of plan.goes) {
      if (each.node.type.startsWith('snapshots/')) expect(each.bytes).toBe(sizes.get(nameOf(each)));
    }
    expect((await planOf(gc, 'one')).goes).toEqual([]);
    seen.gone += gone.length;
    seen.below += plan.goes.filter(({ node }) => node.namespace === '').length;
    seen.kept += left.size;
  }
  for (const [what, count] of Object.entries(seen)) expect(count, what).toBeGreaterThan(0);
}, 240_000);

/** It is on the disk until the next run, and no namespace has it. */
async function deleteBlob({ client: { content } }: Daemon, random: Random): Promise<void> {
  const ctx = inside(random.pick(NAMESPACES) ?? 'one');
  const digests: Digest[] = [];
  for await (const { digest } of content.walk(ctx, [])) digests.push(digest);
  const digest = random.pick(digests);
  if (digest !== undefined) await content.delete(ctx, digest);
}

/** What is written into an active snapshot has to be measured. */
async function writeInto({ client: { snapshotter } }: Daemon, random: Random): Promise<void> {
  for (const ctx of NAMESPACES.map((name) => inside(name))) {
    for await (const { name, kind } of snapshotter.walk(ctx, [])) {
      if (kind !== 'active') continue;
      const [mount] = await snapshotter.mounts(ctx, name);
      await writeFile(join(mount?.source ?? '', 'file'), Buffer.alloc(1 + random.below(50_000)));
    }
  }
}

interface Subject {
  readonly type: 'images' | 'leases';
  readonly namespace: string;
  readonly key: string;
}

async function subjectOf(calls: Calls, random: Random): Promise<Subject | undefined> {
  const namespace = random.pick(NAMESPACES) ?? 'one';
  const { images } = await calls.unary(inside(namespace), RPC.listImages, {});
  const { leases } = await calls.unary(inside(namespace), RPC.listLeases, {});
  return random.pick<Subject>([
    ...images.map(({ name }) => ({ type: 'images' as const, namespace, key: name ?? '' })),
    ...leases.map(({ id }) => ({ type: 'leases' as const, namespace, key: id ?? '' })),
  ]);
}

async function remove(calls: Calls, { type, namespace, key }: Subject): Promise<void> {
  const ctx = inside(namespace);
  if (type === 'images') await calls.unary(ctx, RPC.deleteImage, { name: key });
  else await calls.unary(ctx, RPC.deleteLease, { id: key });
}

test('why: a writer keeps its ingest and what it builds on; one that was left is kept for a day', async () => {
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path, COLLECT_WHEN_ASKED);
  using calls = callsOf(daemon);
  const gc = new GcProxy(calls);
  const { content, snapshotter } = daemon.client;
  const ctx = inside('one');
  const kept = async (name: string): Promise<unknown> => {
    for await (const { chains } of gc.why(ctx, name)) {
      return chains.map(({ kind, expiresAt }) => [kind, expiresAt !== undefined]);
    }
    throw new Error('no answer');
  };
  const expected = await blobOf(content, ctx, 'bytes');
  expect(await kept(expected)).toEqual([]);
  {
    // Another namespace has the blob: a writer stands for it, without an ingest.
    await using _sharing = await content.writer(inside('two'), 'ref', { expected });
    await using writer = await content.writer(ctx, 'ref', {});
    await writer.write(0, Buffer.from('some'));
    expect(await kept('ref')).toEqual([['ingests', false]]);
    const { goes } = await planOf(gc, 'one');
    expect(goes).toEqual([
      { node: { type: 'content', namespace: 'one', key: expected }, bytes: 0 },
    ]);
    await gc.run(ctx);
  }
  expect(await kept('ref')).toEqual([['ingests', true]]);
  await snapshotter.prepare(ctx, 'key', '', new Map([['containerd.io/gc.root', 'x']]));
  expect(await kept('key')).toEqual([['snapshots', false]]);
  expect((await planOf(gc, 'one')).goes.map(nameOf)).toEqual([` content ${expected}`]);
});

async function blobOf(content: ContentStore, ctx: RequestContext, text: string): Promise<Digest> {
  await using writer = await content.writer(ctx, 'blob', {});
  await writer.write(0, Buffer.from(text));
  return writer.commit(NO_LABELS);
}

test('asked while clients work and collections run, why names what keeps what is there all the time', async () => {
  const seed = testSeed();
  process.stdout.write(`gc: BALLAST_SEED=${seed}\n`);
  const random = new Random(seed);
  await using root = await temporaryFolder('alone');
  await using daemon = await startAlone(root.path, COLLECT);
  using calls = callsOf(daemon);
  const gc = new GcProxy(calls);
  const roots = noRoots();
  let isOver = false;
  const work = Promise.all(
    actorsOf('x', random, { daemon, calls, roots }).map(async (actor) => {
      for (let n = 0; n < 12; n++) await actor.work();
    }),
  ).finally(() => {
    isOver = true;
  });
  let asked = 0;
  while (!isOver) {
    const namespace = random.pick(NAMESPACES) ?? 'one';
    const kept = roots.get(namespace) ?? new Set();
    const name = random.pick([...kept]);
    const key = name?.split(' ')[1];
    const explanations: Explanation[] = [];
    try {
      for await (const each of gc.why(inside(namespace), key ?? 'none')) explanations.push(each);
    } catch (error) {
      if (!isOpError(error, 'NotFound')) throw error;
    }
    await planOf(gc, namespace);
    if (name === undefined || !kept.has(name)) continue;
    expect(explanations.map(({ chains }) => chains.length > 0)).toEqual([true]);
    asked++;
  }
  await work;
  expect(asked).toBeGreaterThan(0);
}, 240_000);
