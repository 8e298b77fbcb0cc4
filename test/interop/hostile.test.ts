// Every nasty and hostile image through the layer engine as the differ of a real containerd: 2.x on overlay, or
// with ALL=1 each release that knows differs, on each driver. test/hostile has the same without containerd.
// IMAGES names some of the images.
import { join } from 'node:path';
import { expect } from 'vitest';
import type { Mount } from '../../src/snapshotters/snapshotter.ts';
import { imagesTest } from '../hostile/images-test.ts';
import { makeImages, type ImageCase } from '../hostile/images.ts';
import { baitHash, Judge } from '../hostile/judge.ts';
import { showTree } from '../hostile/show-tree.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { RELEASES } from './containerd.ts';
import { Site, SNAPSHOTTERS, type SnapshotterName } from './site.ts';
import { listSnapshots, snapshots } from './steps.ts';

const isAll = process.env['ALL'] !== undefined;
const releases = RELEASES.filter(({ name }) => name === '2.x' || (isAll && name !== '1.6'));
const snapshotters = SNAPSHOTTERS.filter((name) => isAll || name === 'ballast-overlay');
const ways = releases.flatMap((release) =>
  snapshotters.map((snapshotter) => ({ release, snapshotter })),
);

for (const { release, snapshotter } of ways) {
  const title = `containerd ${release.name} unpacks every image through the differ to ${snapshotter}: the right tree, or it is refused`;
  const test = async (): Promise<void> => {
    await using folder = await temporaryFolder('images');
    const cases = await makeImages(folder.path, process.env['IMAGES'] ?? '*', 'archive');
    const site = await Site.withContainerd(release);
    const bait = await baitHash();
    await using judge = new Judge();
    const wrong: string[] = [];
    for (const image of cases) {
      const archive = join(folder.path, `${image.name}.tar`);
      // They lie about blobs that others brought.
      if (image.name.startsWith('lie-')) await prune(site);
      const complaints = await judged({ site, snapshotter, judge }, image, archive);
      wrong.push(...complaints.map((complaint) => `${image.name}: ${complaint}`));
    }
    expect(wrong).toEqual([]);
    expect(await baitHash(), 'the bait outside of every root').toBe(bait);
    await prune(site);
    expect(await listSnapshots(site, snapshotter)).toEqual([]);
    await site.expectNoMounts();
  };
  imagesTest(title, test, 900_000);
}

interface Parts {
  readonly site: Site;
  readonly snapshotter: SnapshotterName;
  readonly judge: Judge;
}

async function judged(
  { site, snapshotter, judge }: Parts,
  image: ImageCase,
  archive: string,
): Promise<readonly string[]> {
  const { name } = image;
  const reference = `ballast.test/${name}:latest`;
  try {
    try {
      await site.containerd.ctr('images', 'import', '--snapshotter', snapshotter, archive);
    } catch (error) {
      const complaints = await judge.ask({ name, root: null, refused: true });
      return complaints.map(
        (complaint) => `${complaint} (refused: ${String(error).slice(0, 400)})`,
      );
    }
    return await shownRight({ site, snapshotter, judge }, image);
  } finally {
    // Collected before the next: containerd applies no layer whose snapshot it has.
    await site.containerd.ctr('images', 'rm', '--sync', reference).catch(() => undefined);
  }
}

/** A collection that runs already may be faster at a blob: that is no failure. */
async function prune(site: Site): Promise<void> {
  await site.containerd.ctr('content', 'prune', 'references').catch(() => undefined);
}

/**
 * By a view that containerd knows of: it collects others. It collects this one too, as nothing refers to it:
 * what was seen of one that is gone then counts for nothing.
 */
async function shownRight(
  { site, snapshotter, judge }: Parts,
  { name, layers }: ImageCase,
): Promise<readonly string[]> {
  const view = ['view', '--mounts', name, layers.at(-1)?.chainID ?? ''];
  for (;;) {
    let mounts: readonly Mount[];
    try {
      mounts = mountsOf(await snapshots(site, snapshotter, ...view));
    } catch {
      // Imported, and not unpacked: layers of a type that is none.
      return judge.ask({ name, root: null, refused: true });
    }
    const complaints = await judgedTree(judge, name, mounts);
    const wasThere = await snapshots(site, snapshotter, 'rm', name).then(
      () => true,
      () => false,
    );
    if (wasThere || complaints.length === 0) return complaints;
  }
}

async function judgedTree(judge: Judge, name: string, mounts: readonly Mount[]) {
  using shown = showTree(mounts);
  return await judge.ask({ name, root: shown.path, refused: false });
}

/** What `ctr snapshots view --mounts` prints. */
function mountsOf(json: string): readonly Mount[] {
  const found = JSON.parse(json) as readonly { Type: string; Source: string; Options: string[] }[];
  return found.map(({ Type, Source, Options }) => ({
    type: Type,
    source: Source,
    options: Options,
  }));
}
