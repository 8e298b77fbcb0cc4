// Every nasty and hostile image through the engine on every driver: the trees of legal ones are right,
// nothing gets out of its root, and of a layer that is refused nothing is left.
//
// IMAGES names some of them, with * as a wildcard.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { background } from '../../src/base/context.ts';
import { isOpError } from '../../src/base/errors.ts';
import { collect } from '../support/collect.ts';
import type { Client } from '../support/client.ts';
import { Daemon, DRIVERS } from '../support/daemon.ts';
import { rootFor } from '../support/loop-fs.ts';
import { within } from '../support/patience.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { imagesTest } from './images-test.ts';
import { imagesMissing, makeImages, type ImageCase } from './images.ts';
import { baitHash, Judge } from './judge.ts';
import { showTree } from './show-tree.ts';
import { BadImage, unpack, type Unpacked } from './unpack.ts';

const PATTERN = process.env['IMAGES'] ?? '*';

const images = imagesMissing === undefined ? await temporaryFolder('images') : undefined;
const cases = images === undefined ? [] : await makeImages(images.path, PATTERN);

for (const driver of DRIVERS) {
  imagesTest(
    `${driver}: ${cases.length} images give the right trees, or are refused without a trace`,
    async () => {
      await using root = await rootFor(driver, 'hostile');
      const bait = await baitHash();
      const wrong: string[] = [];
      {
        await using daemon = await Daemon.start({ root: root.path, snapshotter: driver });
        await using judge = new Judge();
        for (const image of cases) {
          const work = judged(daemon.client, judge, image);
          const complaints = await within(60_000, image.name, work).catch((error: unknown) => {
            process.stdout.write(`${image.name}\n${daemon.stderr.slice(-2000)}\n`);
            throw error;
          });
          wrong.push(...complaints.map((complaint) => `${image.name}: ${complaint}`));
        }
        await daemon.client.snapshotter.cleanup(background);
        expect(daemon.stderr).not.toMatch(/defect/);
      }
      expect(wrong).toEqual([]);
      expect(await baitHash(), 'the bait outside of every root').toBe(bait);
      expect(await beside(root.path)).toEqual([]);
    },
    600_000,
  );
}

async function judged(client: Client, judge: Judge, image: ImageCase): Promise<readonly string[]> {
  if (images === undefined) return [];
  const { name } = image;
  let unpacked: Unpacked;
  try {
    unpacked = await unpack(client, join(images.path, name), name);
  } catch (error) {
    if (error instanceof BadImage) return judge.ask({ name, root: null, refused: true });
    return [String(error)];
  }
  const { chain, refused } = unpacked;
  const complaints: string[] = [];
  try {
    if (refused !== undefined) {
      complaints.push(...(await judge.ask({ name, root: null, refused: true })));
      if (isOpError(refused.error)) {
        complaints.push(...(await leftovers(client, chain, refused.key)));
      }
      await client.snapshotter.remove(background, refused.key);
    } else {
      const view = await client.snapshotter.view(background, name, chain.at(-1) ?? '', new Map());
      using shown = showTree(view);
      complaints.push(...(await judge.ask({ name, root: shown.path, refused: false })));
    }
  } finally {
    if (refused === undefined) await client.snapshotter.remove(background, name);
    for (const key of chain.toReversed()) await client.snapshotter.remove(background, key);
    // Other images lie about the same blobs.
    for (const { digest } of await collect(client.content.walk(background, []))) {
      await client.content.delete(background, digest);
    }
  }
  return refused === undefined
    ? complaints
    : complaints.map((complaint) => `${complaint} (refused: ${refused.error.message})`);
}

/** A tree that was empty is empty again. */
async function leftovers(
  client: Client,
  chain: readonly string[],
  key: string,
): Promise<readonly string[]> {
  if (chain.length > 0) return [];
  using shown = showTree(await client.snapshotter.mounts(background, key));
  return (await readdir(shown.path)).map((name) => `left behind: ${name}`);
}

async function beside(root: string): Promise<readonly string[]> {
  const places = [root, join(root, 'snapshots'), '/', '/tmp', join(root, '..')];
  const names = await Promise.all(places.map((place) => readdir(place).catch(() => [])));
  return names.flat().filter((name) => name.startsWith('ballast-beside'));
}
