// The property: after any sequence of snapshot requests, with the daemon ended or killed and started
// again in between, every answer (kinds, parents, labels, times, usage, mounts, error codes and which
// check comes first) is that of a small model in memory.
//
// PROPERTY_SECONDS sets the time per driver, BALLAST_SEED repeats a run.
import assert from 'node:assert/strict';
import { lstat, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { withoutEmptyLabels, type Labels } from '../../src/base/labels.ts';
import type { Info, Mount, Usage } from '../../src/snapshotters/snapshotter.ts';
import { collect } from '../support/collect.ts';
import { Daemon, DRIVERS, type DriverName } from '../support/daemon.ts';
import { ownDirectory } from '../support/mounts.ts';
import { rootFor } from '../support/loop-fs.ts';
import {
  fieldPaths,
  holds,
  judged,
  labels,
  NASTY_NAMES,
  PROPERTY_MS,
  updatedLabels,
} from './property.ts';
import { expectedMounts, SnapshotModel, type Node } from './snapshot-model.ts';

const name = fc.constantFrom(...NASTY_NAMES);
const anyName = fc.oneof(
  { weight: 20, arbitrary: name },
  { weight: 1, arbitrary: fc.constant('') },
);
const parent = fc.oneof({ weight: 1, arbitrary: fc.constant('') }, { weight: 2, arbitrary: name });

const FILTERS: readonly { text: string; matches: (name: string, node: Node) => boolean }[] = [
  { text: '', matches: () => true },
  { text: 'kind==committed', matches: (_, node) => node.kind === 'committed' },
  { text: 'name==a', matches: (name) => name === 'a' },
  {
    text: 'name~="^.{1,3}$",kind!=view',
    matches: (name, node) => Array.from(name).length <= 3 && node.kind !== 'view',
  },
  { text: 'parent==b', matches: (_, node) => node.parent === 'b' },
  { text: 'labels."a.b/c"', matches: (_, node) => node.labels.has('a.b/c') },
  { text: 'labels.__proto__==1', matches: (_, node) => node.labels.get('__proto__') === '1' },
];

const operation = fc.oneof(
  {
    weight: 18,
    arbitrary: fc.record({ op: fc.constantFrom('prepare', 'view'), key: anyName, parent, labels }),
  },
  {
    weight: 15,
    arbitrary: fc.record({
      op: fc.constant('commit' as const),
      name: anyName,
      key: name,
      parent: fc.oneof({ weight: 6, arbitrary: fc.constant('') }, { weight: 1, arbitrary: name }),
      labels,
    }),
  },
  {
    weight: 9,
    arbitrary: fc.record({ op: fc.constantFrom('remove', 'stat', 'usage', 'mounts'), key: name }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant('update' as const),
      key: name,
      labels,
      paths: fieldPaths,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ op: fc.constant('write' as const), key: name, size: fc.nat(20_000) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('list' as const),
      filters: fc.uniqueArray(fc.nat(FILTERS.length - 1), { maxLength: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('cleanup' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('restart' as const),
      signal: fc.constantFrom('SIGTERM' as const, 'SIGKILL' as const),
    }),
  },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

for (const driver of DRIVERS) {
  test(
    `${driver}: any sequence of snapshot requests and restarts is answered as the model says`,
    () => holds(operation, (operations) => runSequence(driver, operations)),
    PROPERTY_MS + 600_000,
  );
}

async function runSequence(driver: DriverName, operations: readonly Operation[]): Promise<void> {
  await using folder = await rootFor(driver, 'snapshots');
  const daemon = await Daemon.start({ root: folder.path, snapshotter: driver });
  const run = new Run(driver, daemon);
  try {
    for (const operation of operations) await run.perform(operation);
    await run.compare([0]);
  } finally {
    await run.daemon[Symbol.asyncDispose]();
  }
}

class Run {
  readonly #driver: DriverName;
  readonly #model: SnapshotModel;
  daemon: Daemon;
  #files = 0;

  constructor(driver: DriverName, daemon: Daemon) {
    this.#driver = driver;
    this.#model = new SnapshotModel(driver);
    this.daemon = daemon;
  }

  async perform(operation: Operation): Promise<void> {
    const { snapshotter } = this.daemon.client;
    switch (operation.op) {
      case 'prepare':
      case 'view':
        return this.#make(operation);
      case 'commit':
        return this.#commit(operation);
      case 'update':
        return this.#update(operation.key, operation.labels, operation.paths);
      case 'list':
        return this.compare(operation.filters);
      case 'cleanup':
        return snapshotter.cleanup(background);
      case 'restart':
        this.daemon = await this.daemon.restart(operation.signal);
        return this.compare([0]);
      case 'write': {
        const node = this.#model.nodes.get(operation.key);
        if (node?.kind !== 'active') return;
        await writeFile(
          join(node.directory, `file${this.#files++ % 5}`),
          Buffer.alloc(operation.size, 1),
        );
        return;
      }
      default:
        return this.#ask(operation.op, operation.key);
    }
  }

  async #ask(op: string, key: string): Promise<void> {
    const { snapshotter } = this.daemon.client;
    const what = `${op} ${short(key)}`;
    const node = this.#model.nodes.get(key);
    if (op === 'remove') {
      const verdict = this.#model.remove(key);
      await judged(verdict, what, () => snapshotter.remove(background, key));
      if (verdict.length === 0) this.#model.nodes.delete(key);
    } else if (op === 'stat') {
      const done = await judged(this.#model.find(key), what, () =>
        snapshotter.stat(background, key),
      );
      if (done) this.#same(key, done.answer);
    } else if (op === 'mounts') {
      const done = await judged(this.#model.mounts(key), what, () =>
        snapshotter.mounts(background, key),
      );
      if (done) assert.deepEqual(done.answer, node?.mounts, what);
    } else {
      const done = await judged(this.#model.find(key), what, () =>
        snapshotter.usage(background, key),
      );
      if (done && node) assert.deepEqual(done.answer, await this.#usage(node), what);
    }
  }

  async #usage(node: Node): Promise<Usage> {
    if (node.kind === 'view') return { inodes: 0, size: 0 };
    return node.usage ?? this.#measure(node);
  }

  /** On btrfs only what is not the same in the parent's subvolume. */
  #measure({ directory, parent }: Node): Promise<Usage> {
    const above = this.#driver === 'btrfs' ? this.#model.nodes.get(parent) : undefined;
    return above ? measureAgainst(directory, above.directory) : measure(directory);
  }

  async #make(operation: Operation & { op: 'prepare' | 'view' }): Promise<void> {
    const { op, key, parent } = operation;
    const verdict = this.#model.make(key, parent);
    const before = nowMs();
    const done = await judged(verdict, `${op} ${short(key)} on ${short(parent)}`, () =>
      this.daemon.client.snapshotter[op](background, key, parent, operation.labels),
    );
    if (!done) return;
    const info = await this.daemon.client.snapshotter.stat(background, key);
    assert.equal(info.createdAt, info.updatedAt);
    within(before, info.createdAt);
    const kind = op === 'view' ? 'view' : 'active';
    const above = this.#model.above(parent);
    const hasOwn = kind === 'active' || above.length === 0 || this.#driver === 'btrfs';
    const directory = hasOwn ? ownDirectory(done.answer) : '';
    this.#expectMounts(done.answer, expectedMounts(this.#driver, kind, directory, above));
    this.#model.nodes.set(key, {
      kind,
      parent,
      labels: withoutEmptyLabels(operation.labels),
      createdAt: info.createdAt,
      updatedAt: info.updatedAt,
      directory,
      mounts: done.answer,
      usage: undefined,
    });
    this.#same(key, info);
  }

  /** `index=off` and `userxattr` are the kernel's affair. */
  #expectMounts(mounts: readonly Mount[], expected: readonly Mount[]): void {
    const known = mounts.map((mount) => ({
      ...mount,
      options: mount.options.filter((option) => option !== 'index=off' && option !== 'userxattr'),
    }));
    assert.deepEqual(known, expected);
  }

  async #commit(operation: Operation & { op: 'commit' }): Promise<void> {
    const { name, key, parent, labels } = operation;
    const { snapshotter } = this.daemon.client;
    const verdict = this.#model.commit(name, key, parent);
    const node = this.#model.nodes.get(key);
    const before = nowMs();
    const unwritten = node?.kind === 'active' ? await this.#measure(node) : undefined;
    const what = `commit ${short(key)} as ${short(name)} on ${short(parent)}`;
    const done = await judged(verdict, what, () =>
      snapshotter.commit(background, name, key, labels, parent),
    );
    if (!done || !node) return;
    const info = await snapshotter.stat(background, name);
    within(before, info.createdAt);
    assert.equal(info.createdAt, info.updatedAt);
    // btrfs allots a file's blocks when it writes them out, and keeps the layer apart.
    const written = this.#driver === 'btrfs';
    const directory = written ? node.directory.replace(/fs$/, 'layer') : node.directory;
    const measured = written ? await this.#measure({ ...node, directory }) : unwritten;
    assert.deepEqual(await snapshotter.usage(background, name), measured, what);
    this.#model.nodes.delete(key);
    this.#model.nodes.set(name, {
      ...node,
      directory,
      kind: 'committed',
      parent: parent || node.parent,
      labels: withoutEmptyLabels(labels),
      createdAt: info.createdAt,
      updatedAt: info.updatedAt,
      usage: measured,
    });
    this.#same(name, info);
  }

  async #update(key: string, labels: Labels, paths: readonly string[]): Promise<void> {
    const node = this.#model.nodes.get(key);
    const updated = updatedLabels(node?.labels ?? new Map(), labels, paths);
    const verdict = [...this.#model.find(key), ...(updated ? [] : (['InvalidArgument'] as const))];
    const before = nowMs();
    const done = await judged(verdict, `update ${short(key)} ${paths.join()}`, () =>
      this.daemon.client.snapshotter.update(background, { name: key, labels }, paths),
    );
    if (!done || !node || !updated) return;
    within(before, done.answer.updatedAt);
    node.labels = updated;
    node.updatedAt = done.answer.updatedAt;
    this.#same(key, done.answer);
  }

  #same(name: string, info: Info): void {
    const node = this.#model.nodes.get(name);
    assert.ok(node, `${short(name)} is there`);
    const { kind, parent, labels, createdAt, updatedAt } = node;
    assert.deepEqual(info, { name, kind, parent, labels: new Map(labels), createdAt, updatedAt });
  }

  /** The list under some filters is the model's. */
  async compare(filters: readonly number[]): Promise<void> {
    const chosen = filters.flatMap((index) => FILTERS[index] ?? []);
    const expected = [...this.#model.nodes]
      .filter(
        ([name, node]) =>
          chosen.length === 0 || chosen.some((filter) => filter.matches(name, node)),
      )
      .map(([name]) => name);
    const texts = chosen.map((filter) => filter.text);
    const listed = await collect(this.daemon.client.snapshotter.walk(background, texts));
    const names = listed.map((info) => info.name);
    assert.deepEqual(names.toSorted(), expected.toSorted(), `list ${texts.join(' or ')}`);
    for (const info of listed) this.#same(info.name, info);
  }
}

const short = (name: string): string => JSON.stringify(name.slice(0, 40));

const nowMs = (): number => Date.now();

/** A time from the daemon lies between `beforeMs` and now, as far as milliseconds tell. */
function within(beforeMs: number, time: bigint): void {
  assert.ok(time >= BigInt(beforeMs) * 1_000_000n && time <= BigInt(Date.now() + 1) * 1_000_000n);
}

/** Distinct inodes below, the directory itself included, and their blocks. */
async function measure(directory: string): Promise<Usage> {
  const seen = new Map<bigint, bigint>();
  const visit = async (path: string): Promise<void> => {
    const stat = await lstat(path, { bigint: true });
    seen.set(stat.ino, stat.blocks * 512n);
    if (!stat.isDirectory()) return;
    for (const entry of await readdir(path)) await visit(join(path, entry));
  };
  await visit(directory);
  const size = [...seen.values()].reduce((sum, bytes) => sum + bytes, 0n);
  return { inodes: seen.size, size: Number(size) };
}

/** The files right inside that the other directory has not, or has another version of. */
async function measureAgainst(directory: string, other: string): Promise<Usage> {
  let [inodes, size] = [0, 0n];
  for (const name of await readdir(directory)) {
    const file = await lstat(join(directory, name), { bigint: true });
    const there = await lstat(join(other, name), { bigint: true }).catch(() => undefined);
    if (there?.size === file.size && there.mtimeNs === file.mtimeNs) continue;
    inodes++;
    size += file.blocks * 512n;
  }
  return { inodes, size: Number(size) };
}
