// Every nasty and hostile image through the engine on every driver: the trees of legal ones are right,
// nothing gets out of its root, and of a layer that is refused nothing is left.
//
// IMAGES names some of them, with * as a wildcard.
import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { background } from '../../src/base/context.ts';
import { digestOf } from '../../src/base/digest.ts';
import { PLAIN_LAYER } from '../../src/diff/diff.ts';
import type { ImageLayer } from '../../src/diff/unpack.ts';
import { openInProcess } from '../contract/in-process.ts';
import { collect } from '../support/collect.ts';
import { Daemon, DRIVERS } from '../support/daemon.ts';
import { loopFileSystem, rootFor } from '../support/loop-fs.ts';
import { within } from '../support/patience.ts';
import { END } from '../support/tar.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { imagesTest } from './images-test.ts';
import { imagesMissing, makeImages, type ImageCase } from './images.ts';
import { baitHash, Judge } from './judge.ts';
import { showTree } from './show-tree.ts';
import { BadImage, unpackLayout, type Engine, type UnpackOptions } from './unpack.ts';

const PATTERN = process.env['IMAGES'] ?? '*';

const images = imagesMissing === undefined ? await temporaryFolder('images') : undefined;
const cases = images === undefined ? [] : await makeImages(images.path, PATTERN);

for (const driver of DRIVERS) {
  imagesTest(
    `${driver}: ${cases.length} images give the right trees, or are refused without a trace`,
    async () => {
      await using root = await rootFor(driver, 'hostile');
      await using daemon = await Daemon.start({ root: root.path, snapshotter: driver });
      await judgeAll(daemon.client, { canRebase: false });
      expect(daemon.stderr).not.toMatch(/defect/);
      expect(await beside(root.path)).toEqual([]);
    },
    600_000,
  );
}

/** These are about the order of things, not about the disk, which would double their time. */
const inMemory = () => loopFileSystem('ext4', 4096);

imagesTest(
  `overlayfs: the same where the layers of ${cases.length} images are applied at the same time`,
  async () => {
    await using engine = await openInProcess('overlayfs', inMemory());
    await judgeAll(engine, { canRebase: true });
  },
  600_000,
);

imagesTest(
  'overlayfs: the same where a client with the calls of containerd 2.2 has something below all layers',
  async () => {
    await using root = await inMemory();
    await using daemon = await Daemon.start({ root: root.path, snapshotter: 'overlayfs' });
    await judgeAll(daemon.client, { canRebase: true, base: NOTHING });
    expect(daemon.stderr).not.toMatch(/defect/);
    expect(await beside(root.path)).toEqual([]);
  },
  600_000,
);

/** With it below them, no layer of an image is the lowest: all are rebased. */
const NOTHING_DIGEST = digestOf('sha256', createHash('sha256').update(END).digest('hex'));
const NOTHING: ImageLayer = {
  descriptor: { mediaType: PLAIN_LAYER, digest: NOTHING_DIGEST, size: END.length },
  diffId: NOTHING_DIGEST,
};

async function judgeAll(engine: Engine, options: UnpackOptions): Promise<void> {
  const bait = await baitHash();
  const wrong: string[] = [];
  await using judge = new Judge();
  for (const image of cases) {
    const work = judged({ engine, judge, options }, image);
    const complaints = await within(60_000, image.name, work);
    wrong.push(...complaints.map((complaint) => `${image.name}: ${complaint}`));
  }
  await engine.snapshotter.cleanup(background);
  expect(wrong).toEqual([]);
  expect(await baitHash(), 'the bait outside of every root').toBe(bait);
}

interface Judging {
  readonly engine: Engine;
  readonly judge: Judge;
  readonly options: UnpackOptions;
}

async function judged(
  { engine, judge, options }: Judging,
  { name }: ImageCase,
): Promise<readonly string[]> {
  if (images === undefined) return [];
  try {
    if (options.base !== undefined) await store(engine, END);
    const { top, refused, leftovers } = await unpackLayout(
      engine,
      join(images.path, name),
      options,
    );
    const complaints = leftovers.map((left) => `left behind: ${left}`);
    if (refused === undefined) {
      const view = await engine.snapshotter.view(background, name, top, new Map());
      using shown = showTree(view);
      complaints.push(...(await judge.ask({ name, root: shown.path, refused: false })));
      await engine.snapshotter.remove(background, name);
      return complaints;
    }
    complaints.push(...(await judge.ask({ name, root: null, refused: true })));
    return complaints.map((complaint) => `${complaint} (refused: ${refused.message})`);
  } catch (error) {
    if (error instanceof BadImage) return judge.ask({ name, root: null, refused: true });
    return [String(error)];
  } finally {
    await removeAll(engine);
  }
}

async function store({ content }: Engine, bytes: Buffer): Promise<void> {
  await using writer = await content.writer(background, 'nothing', {});
  await writer.write(0, Buffer.from(bytes));
  await writer.commit(new Map());
}

/** Other images lie about the same blobs. @throws where something is left that is not committed */
async function removeAll({ snapshotter, content }: Engine): Promise<void> {
  let left = await collect(snapshotter.walk(background, []));
  expect(left.filter(({ kind }) => kind !== 'committed')).toEqual([]);
  while (left.length > 0) {
    const parents = new Set(left.map(({ parent }) => parent));
    const tops = left.filter(({ name }) => !parents.has(name));
    for (const { name } of tops) await snapshotter.remove(background, name);
    left = left.filter(({ name }) => parents.has(name));
  }
  for (const { digest } of await collect(content.walk(background, []))) {
    await content.delete(background, digest);
  }
}

async function beside(root: string): Promise<readonly string[]> {
  const places = [root, join(root, 'snapshots'), '/', '/tmp', join(root, '..')];
  const names = await Promise.all(places.map((place) => readdir(place).catch(() => [])));
  return names.flat().filter((name) => name.startsWith('ballast-beside'));
}
