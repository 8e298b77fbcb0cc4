// The property: whenever the power fails while layers wait for their parents or are rebased, a layer whose Apply was
// acknowledged is committed on what the disk then holds, or can be, and is whole; nothing else is left of it.
//
// POWER_CUTS sets the number of cuts, BALLAST_SEED repeats a run (as far as timing allows).
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { lstat, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { background } from '../../src/base/context.ts';
import { digestOf } from '../../src/base/digest.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import { PLAIN_LAYER } from '../../src/diff/diff.ts';
import { collect } from '../support/collect.ts';
import type { Client } from '../support/client.ts';
import { Daemon } from '../support/daemon.ts';
import { mountImage } from '../support/loop-fs.ts';
import { ownDirectory } from '../support/mounts.ts';
import { bytesOf, numberFromEnv, Random, testSeed } from '../support/random.ts';
import { SlowDisk } from '../support/slow-disk.ts';
import { slowDiskTest } from '../support/slow-disk-test.ts';
import { END, rawEntry } from '../support/tar.ts';

const CUTS = numberFromEnv('POWER_CUTS', 20);
const LOAD_MS_MAX = 300;
const CLIENTS = 3;
const FILES = 60;
const PARENT_COMES = new Map([['containerd.io/snapshot/parent-chain-id', 'base']]);

const bodyOf = (layer: number, file: number): Buffer =>
  bytesOf(layer * 1000 + file, 1 + ((file * 997) % 9000));

/** Of the base, each layer hides `gone`. */
const archiveOf = (layer: number): Buffer =>
  Buffer.concat([
    rawEntry({ name: '.wh.gone' }),
    ...Array.from({ length: FILES }, (_, file) =>
      rawEntry({ name: `d${file % 7}/f${file}` }, bodyOf(layer, file)),
    ),
    END,
  ]);

async function apply(client: Client, key: string, parent: string, archive: Buffer): Promise<void> {
  const digest = digestOf('sha256', createHash('sha256').update(archive).digest('hex'));
  const labels = parent === '' ? NO_LABELS : PARENT_COMES;
  const mounts = await client.snapshotter.prepare(background, key, '', labels);
  {
    await using writer = await client.content.writer(background, key, {});
    await writer.write(0, Buffer.from(archive));
    await writer.commit(NO_LABELS);
  }
  const layer = { mediaType: PLAIN_LAYER, digest, size: archive.length };
  await client.applier.apply(background, layer, mounts);
}

const commit = (client: Client, layer: number): Promise<void> =>
  client.snapshotter.commit(background, `layer ${layer}`, `key ${layer}`, NO_LABELS, 'base');

/** Layers that were applied, and those of them that were committed. */
interface Acknowledged {
  readonly applied: Set<number>;
  readonly committed: Set<number>;
}

/** Clients that apply and commit, until the signal comes. */
async function load(
  client: Client,
  numbers: Iterator<number>,
  acknowledged: Acknowledged,
  signal: AbortSignal,
): Promise<void> {
  const one = async (): Promise<void> => {
    while (!signal.aborted) {
      const layer: number = numbers.next().value;
      await apply(client, `key ${layer}`, 'base', archiveOf(layer));
      acknowledged.applied.add(layer);
      // The others wait for longer than a round.
      if (layer % 2 === 0) continue;
      await commit(client, layer);
      acknowledged.committed.add(layer);
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, one));
}

slowDiskTest(
  `${CUTS} power cuts lose no layer that waits for its parent`,
  async () => {
    const seed = testSeed();
    process.stdout.write(`BALLAST_SEED=${seed}\n`);
    const random = new Random(seed);
    await using disk = await SlowDisk.up({
      syncUs: 3000,
      fileSystem: (process.env['FS'] ?? 'ext4') as 'ext4',
    });
    await using daemon = await Daemon.start({
      root: `${disk.path}/root`,
      snapshotter: 'overlayfs',
    });
    const { client } = daemon;
    await apply(client, 'base key', '', Buffer.concat([rawEntry({ name: 'gone' }), END]));
    await client.snapshotter.commit(background, 'base', 'base key', NO_LABELS, '');
    const numbers = (function* () {
      for (let number = 1; ; number++) yield number;
    })();
    let [waited, half] = [0, 0];
    for (let round = 0; round < CUTS; round++) {
      const acknowledged: Acknowledged = { applied: new Set(), committed: new Set() };
      const stopping = new AbortController();
      const loaded = load(client, numbers, acknowledged, stopping.signal);
      await new Promise((resolve) => setTimeout(resolve, random.below(LOAD_MS_MAX)));
      const before = {
        applied: new Set(acknowledged.applied),
        committed: new Set(acknowledged.committed),
      };
      const image = await disk.cut(random.below(2 ** 15));
      stopping.abort();
      await loaded;
      const found = await checkImage(image, before);
      waited += found.waited;
      half += found.half;
      await removeAll(client, (name) => name !== 'base');
    }
    process.stdout.write(`${waited} layers waited after their cut, ${half} of them half rebased\n`);
  },
  60_000 + CUTS * 10_000,
);

/** @returns how many layers were not committed, and of how many some was in the upper directory already */
async function checkImage(
  image: string,
  { applied, committed }: Acknowledged,
): Promise<{ readonly waited: number; readonly half: number }> {
  await using mounted = await mountImage(image);
  const root = `${mounted.path}/root`;
  await using daemon = await Daemon.start({ root, snapshotter: 'overlayfs' });
  const { client } = daemon;
  const names = new Set(
    (await collect(client.snapshotter.walk(background, []))).map(({ name }) => name),
  );
  let [waited, half] = [0, 0];
  for (const layer of applied) {
    const isCommitted = names.has(`layer ${layer}`);
    assert.ok(isCommitted || !committed.has(layer), `layer ${layer} was committed`);
    if (!isCommitted) {
      const mounts = await client.snapshotter.mounts(background, `key ${layer}`);
      if ((await readdir(ownDirectory(mounts))).length > 0) half++;
      waited++;
      await commit(client, layer);
    }
    await checkTree(client, layer);
  }
  // What nobody was told of.
  await removeAll(client, (name) => name.startsWith('key '));
  await client.snapshotter.cleanup(background);
  const folder = `${root}/snapshotters/ballast-overlay/snapshots`;
  for (const id of await readdir(folder)) {
    assert.ok(!(await readdir(join(folder, id))).includes('staged'), `${id} was staged`);
  }
  await removeAll(client, () => true);
  await client.snapshotter.cleanup(background);
  assert.deepEqual(await readdir(folder), []);
  return { waited, half };
}

async function checkTree(client: Client, layer: number): Promise<void> {
  const key = `view of ${layer}`;
  const view = await client.snapshotter.view(background, key, `layer ${layer}`, NO_LABELS);
  const [upper = ''] = /(?<=lowerdir=)[^:]+/.exec(view[0]?.options.join() ?? '') ?? [];
  for (let file = 0; file < FILES; file++) {
    const bytes = await readFile(join(upper, `d${file % 7}/f${file}`));
    assert.ok(bytes.equals(bodyOf(layer, file)), `layer ${layer}, file ${file}`);
  }
  assert.ok((await lstat(join(upper, 'gone'))).isCharacterDevice());
  assert.equal((await readdir(upper)).length, 8);
  await client.snapshotter.remove(background, key);
}

async function removeAll(client: Client, isWanted: (name: string) => boolean): Promise<void> {
  const infos = await collect(client.snapshotter.walk(background, []));
  const names = infos.map(({ name }) => name).filter(isWanted);
  // The base has children.
  for (const name of names.toSorted().toReversed()) {
    await client.snapshotter.remove(background, name);
  }
}
