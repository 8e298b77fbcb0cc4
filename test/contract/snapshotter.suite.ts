import assert from 'node:assert/strict';
import { lstat, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { background } from '../../src/base/context.ts';
import type { Snapshotter } from '../../src/snapshotters/snapshotter.ts';
import { collect } from '../support/collect.ts';
import { ownDirectory, performMounts } from '../support/mounts.ts';
import { refuses, type Suite } from './suite.ts';

const none: ReadonlyMap<string, string> = new Map();
const ctx = background;

/** A committed snapshot with one file of its own. */
async function layer(s: Snapshotter, name: string, parent = ''): Promise<void> {
  const mounts = await s.prepare(ctx, `${name} key`, parent, none);
  {
    await using mounted = await performMounts(mounts);
    await writeFile(join(mounted.path, name), `this is ${name}`);
  }
  await s.commit(ctx, name, `${name} key`, none, '');
}

const names = async (s: Snapshotter, ...filters: string[]): Promise<readonly string[]> =>
  (await collect(s.walk(ctx, filters))).map((info) => info.name).toSorted();

async function aChildSeesItsParentsFilesAndWritesItsOwn(s: Snapshotter): Promise<void> {
  await layer(s, 'one');
  await layer(s, 'two', 'one');
  await using mounted = await performMounts(await s.prepare(ctx, 'child', 'two', none));
  assert.equal(await readFile(join(mounted.path, 'one'), 'utf8'), 'this is one');
  assert.equal(await readFile(join(mounted.path, 'two'), 'utf8'), 'this is two');
  await writeFile(join(mounted.path, 'one'), 'changed');
  await using parent = await performMounts(await s.view(ctx, 'view', 'two', none));
  assert.equal(await readFile(join(parent.path, 'one'), 'utf8'), 'this is one');
}

async function aViewCannotBeWritten(s: Snapshotter): Promise<void> {
  await layer(s, 'one');
  await layer(s, 'two', 'one');
  for (const parent of ['', 'one', 'two']) {
    await using mounted = await performMounts(await s.view(ctx, `view of ${parent}`, parent, none));
    await assert.rejects(writeFile(join(mounted.path, 'new'), ''), /EROFS/);
  }
}

async function anEmptySnapshotIsADirectoryThatAllMayEnter(s: Snapshotter): Promise<void> {
  const directory = ownDirectory(await s.prepare(ctx, 'key', '', none));
  assert.equal((await stat(directory)).mode & 0o7777, 0o755);
}

async function mountsAreThoseOfPrepareAndView(s: Snapshotter): Promise<void> {
  await layer(s, 'one');
  await layer(s, 'two', 'one');
  const prepared = await s.prepare(ctx, 'active', 'two', none);
  const viewed = await s.view(ctx, 'view', 'two', none);
  assert.deepEqual(await s.mounts(ctx, 'active'), prepared);
  assert.deepEqual(await s.mounts(ctx, 'view'), viewed);
  await refuses('FailedPrecondition', s.mounts(ctx, 'two'), /two/);
  await refuses('NotFound', s.mounts(ctx, 'nothing'), /nothing/);
}

async function commitFreesTheKeyAndReplacesLabels(s: Snapshotter): Promise<void> {
  await s.prepare(ctx, 'key', '', new Map([['of', 'prepare']]));
  await s.commit(ctx, 'name', 'key', new Map([['from', 'commit']]), '');
  const info = await s.stat(ctx, 'name');
  assert.deepEqual(
    [info.kind, info.parent, [...info.labels]],
    ['committed', '', [['from', 'commit']]],
  );
  assert.equal(info.createdAt, info.updatedAt);
  await refuses('NotFound', s.stat(ctx, 'key'), /key/);
  await s.prepare(ctx, 'key', 'name', none);
}

async function aTakenNameIsRefused(s: Snapshotter): Promise<void> {
  await layer(s, 'one');
  await s.prepare(ctx, 'active', '', none);
  await refuses('AlreadyExists', s.prepare(ctx, 'active', '', none), /active/);
  await refuses('AlreadyExists', s.view(ctx, 'one', '', none), /one/);
  await refuses('AlreadyExists', s.commit(ctx, 'one', 'active', none, ''), /one/);
  await refuses('AlreadyExists', s.commit(ctx, 'active', 'active', none, ''), /active/);
}

async function aParentMustBeThereAndCommitted(s: Snapshotter): Promise<void> {
  await s.prepare(ctx, 'active', '', none);
  await refuses('NotFound', s.prepare(ctx, 'child', 'nothing', none), /nothing/);
  await refuses('InvalidArgument', s.view(ctx, 'child', 'active', none), /active/);
  await refuses('NotFound', s.prepare(ctx, 'active', 'nothing', none), /nothing/);
  assert.deepEqual(await names(s), ['active']);
}

async function aParentAtCommitHasToBeRight(s: Snapshotter): Promise<void> {
  await layer(s, 'base');
  await layer(s, 'other');
  await s.prepare(ctx, 'without', '', none);
  await s.prepare(ctx, 'with', 'base', none);
  await s.prepare(ctx, 'active', '', none);
  await refuses('InvalidArgument', s.commit(ctx, 'no', 'with', none, 'other'), /other/);
  await refuses('NotFound', s.commit(ctx, 'no', 'without', none, 'nothing'), /nothing/);
  await refuses('FailedPrecondition', s.commit(ctx, 'no', 'without', none, 'active'), /active/);
  await s.commit(ctx, 'kept', 'with', none, 'base');
  assert.equal((await s.stat(ctx, 'kept')).parent, 'base');
}

/** Of drivers that claim `rebase`. */
export async function commitCanSetTheParentOfASnapshotThatHasNone(s: Snapshotter): Promise<void> {
  await layer(s, 'base');
  await s.prepare(ctx, 'without', '', none);
  await s.commit(ctx, 'rebased', 'without', none, 'base');
  assert.equal((await s.stat(ctx, 'rebased')).parent, 'base');
  await refuses('FailedPrecondition', s.remove(ctx, 'base'), /remove/);
}

/** Of the others: a snapshot has all of its tree in itself. */
export async function commitCannotSetTheParentOfASnapshotThatHasNone(
  s: Snapshotter,
): Promise<void> {
  await layer(s, 'base');
  const labels = new Map([['containerd.io/snapshot/parent-chain-id', 'base']]);
  await s.prepare(ctx, 'without', '', labels);
  await refuses('FailedPrecondition', s.commit(ctx, 'no', 'without', none, 'base'), /rebase/);
  assert.deepEqual(await names(s), ['base', 'without']);
  await s.commit(ctx, 'alone', 'without', none, '');
}

async function whatHasChildrenCannotBeRemoved(s: Snapshotter): Promise<void> {
  await layer(s, 'one');
  await s.view(ctx, 'view', 'one', none);
  await refuses('FailedPrecondition', s.remove(ctx, 'one'), /remove/);
  await s.remove(ctx, 'view');
  await s.remove(ctx, 'one');
  await refuses('NotFound', s.remove(ctx, 'one'), /one/);
  await layer(s, 'one');
}

async function cleanupLeavesNothingOfWhatWasRemoved(s: Snapshotter): Promise<void> {
  await layer(s, 'kept');
  const kept = ownDirectory(await s.view(ctx, 'of kept', 'kept', none));
  const directory = ownDirectory(await s.prepare(ctx, 'key', 'kept', none));
  await writeFile(join(directory, 'file'), 'bytes');
  await s.remove(ctx, 'key');
  await s.cleanup(ctx);
  await assert.rejects(lstat(directory), /ENOENT/);
  assert.equal(await readFile(join(kept, 'kept'), 'utf8'), 'this is kept');
}

async function usageIsWhatIsWrittenThenFrozen(s: Snapshotter): Promise<void> {
  const directory = ownDirectory(await s.prepare(ctx, 'key', '', none));
  const empty = await s.usage(ctx, 'key');
  assert.equal(empty.inodes, 1);
  await writeFile(join(directory, 'file'), Buffer.alloc(1 << 20, 1));
  const { inodes, size } = await s.usage(ctx, 'key');
  assert.equal(inodes, 2);
  assert.ok(size - empty.size >= 1 << 20 && size - empty.size < 2 << 20, `${size}`);
  await s.commit(ctx, 'name', 'key', none, '');
  assert.deepEqual(await s.usage(ctx, 'name'), { inodes, size });
  await s.view(ctx, 'view', 'name', none);
  assert.deepEqual(await s.usage(ctx, 'view'), { inodes: 0, size: 0 });
  await refuses('NotFound', s.usage(ctx, 'key'), /key/);
}

async function updateChangesLabelsOnly(s: Snapshotter): Promise<void> {
  const before = await s
    .prepare(
      ctx,
      'key',
      '',
      new Map([
        ['a', '1'],
        ['b/c.d', '2'],
      ]),
    )
    .then(() => s.stat(ctx, 'key'));
  const set = (labels: [string, string][], ...paths: string[]) =>
    s.update(ctx, { name: 'key', labels: new Map(labels) }, paths);
  const one = await set(
    [
      ['b/c.d', '3'],
      ['a', 'not asked for'],
    ],
    'labels.b/c.d',
  );
  assert.deepEqual([...one.labels].toSorted(), [
    ['a', '1'],
    ['b/c.d', '3'],
  ]);
  assert.ok(one.updatedAt > before.updatedAt);
  assert.equal(one.createdAt, before.createdAt);
  assert.deepEqual(await s.stat(ctx, 'key'), one);
  assert.deepEqual([...(await set([], 'labels.a')).labels], [['b/c.d', '3']]);
  assert.deepEqual([...(await set([['x', 'y']])).labels], [['x', 'y']]);
  await refuses('InvalidArgument', set([['x', 'z']], 'labels.x', 'parent'), /parent/);
  assert.deepEqual([...(await s.stat(ctx, 'key')).labels], [['x', 'y']]);
}

async function labelsAreNotInheritedAndEmptyOnesNotKept(s: Snapshotter): Promise<void> {
  await s.prepare(ctx, 'key', '', none);
  await s.commit(
    ctx,
    'name',
    'key',
    new Map([
      ['a', '1'],
      ['__proto__', 'p'],
      ['empty', ''],
    ]),
    '',
  );
  assert.deepEqual([...(await s.stat(ctx, 'name')).labels].toSorted(), [
    ['__proto__', 'p'],
    ['a', '1'],
  ]);
  await s.prepare(ctx, 'child', 'name', none);
  assert.equal((await s.stat(ctx, 'child')).labels.size, 0);
}

async function filtersChoose(s: Snapshotter): Promise<void> {
  assert.deepEqual(await names(s), []);
  await s.prepare(ctx, 'key', '', none);
  await s.commit(ctx, 'layer', 'key', new Map([['containerd.io/snapshot.ref', 'sha256:1']]), '');
  await s.prepare(ctx, 'active', 'layer', none);
  await s.view(ctx, 'view', 'layer', none);
  assert.deepEqual(await names(s), ['active', 'layer', 'view']);
  assert.deepEqual(await names(s, 'kind==active', 'kind==view'), ['active', 'view']);
  assert.deepEqual(await names(s, 'parent==layer,name~=^v'), ['view']);
  const ref = 'labels."containerd.io/snapshot.ref"==sha256:1,parent==""';
  assert.deepEqual(await names(s, ref), ['layer']);
  await refuses('InvalidArgument', names(s, 'kind=active'));
}

async function aStatInTheMiddleOfAListIsAnswered(s: Snapshotter): Promise<void> {
  for (let n = 0; n < 250; n++) await s.prepare(ctx, `key ${n}`, '', none);
  let seen = 0;
  for await (const info of s.walk(ctx, [])) {
    if (seen++ % 50 === 0) assert.deepEqual(await s.stat(ctx, info.name), info);
  }
  assert.equal(seen, 250);
}

async function namesAreTextAndNothingElse(s: Snapshotter): Promise<void> {
  const nasty = [
    '../../x',
    '/',
    '.',
    'a\0b',
    '__proto__',
    'constructor',
    ' ',
    'ü ☃',
    'x'.repeat(10_000),
  ];
  for (const name of nasty) await s.prepare(ctx, name, '', none);
  assert.deepEqual(await names(s), nasty.toSorted());
  for (const name of nasty) {
    assert.equal((await s.stat(ctx, name)).name, name);
    await s.remove(ctx, name);
  }
  await refuses('InvalidArgument', s.prepare(ctx, '', '', none));
}

async function equalRequestsAtOnceGiveOneSnapshot(s: Snapshotter): Promise<void> {
  const results = await Promise.allSettled(
    Array.from({ length: 16 }, () => s.prepare(ctx, 'same', '', none)),
  );
  assert.equal(results.filter((result) => result.status === 'fulfilled').length, 1);
  for (const result of results) {
    if (result.status === 'rejected') await refuses('AlreadyExists', Promise.reject(result.reason));
  }
}

async function timesAreThoseOfTheCall(s: Snapshotter): Promise<void> {
  const before = BigInt(Date.now()) * 1_000_000n;
  await s.prepare(ctx, 'key', '', none);
  const after = BigInt(Date.now() + 1) * 1_000_000n;
  const { createdAt, updatedAt } = await s.stat(ctx, 'key');
  assert.ok(before <= createdAt && createdAt <= after);
  assert.equal(createdAt, updatedAt);
}

export async function emptySnapshotter(s: Snapshotter): Promise<void> {
  for (let infos = await collect(s.walk(ctx, [])); infos.length > 0;) {
    const parents = new Set(infos.map((info) => info.parent));
    const leaves = infos.filter((info) => !parents.has(info.name));
    for (const { name } of leaves) await s.remove(ctx, name);
    infos = await collect(s.walk(ctx, []));
  }
  await s.cleanup(ctx);
}

export const snapshotterSuite: Suite<Snapshotter> = [
  aChildSeesItsParentsFilesAndWritesItsOwn,
  aViewCannotBeWritten,
  anEmptySnapshotIsADirectoryThatAllMayEnter,
  mountsAreThoseOfPrepareAndView,
  commitFreesTheKeyAndReplacesLabels,
  aTakenNameIsRefused,
  aParentMustBeThereAndCommitted,
  aParentAtCommitHasToBeRight,
  whatHasChildrenCannotBeRemoved,
  cleanupLeavesNothingOfWhatWasRemoved,
  usageIsWhatIsWrittenThenFrozen,
  updateChangesLabelsOnly,
  labelsAreNotInheritedAndEmptyOnesNotKept,
  filtersChoose,
  aStatInTheMiddleOfAListIsAnswered,
  namesAreTextAndNothingElse,
  equalRequestsAtOnceGiveOneSnapshot,
  timesAreThoseOfTheCall,
];
