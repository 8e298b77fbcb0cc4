// The nasty images through Apply and Diff: what Diff makes of an image's last layer, applied to the
// snapshot below it, gives the tree of the image again.
import { readFile } from 'node:fs/promises';
import { expect } from 'vitest';
import { parseDigest } from '../../src/base/digest.ts';
import { messageOf } from '../../src/base/errors.ts';
import type { Descriptor } from '../../src/diff/diff.ts';
import { differences, Site } from '../layers/site.ts';
import { DRIVERS } from '../support/daemon.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { imagesTest } from './images-test.ts';
import { blobPath, makeImages, type ImageCase } from './images.ts';

const title = 'what Diff makes of the nasty images gives the same trees again';
for (const driver of DRIVERS) {
  imagesTest(
    `${driver}: ${title}`,
    async () => expect(await failures(driver)).toEqual([]),
    600_000,
  );
}

/** By Apply. */
const REFUSED = /^layer sha256:\w+: layer, entry /;

async function failures(driver: (typeof DRIVERS)[number]): Promise<readonly string[]> {
  await using folder = await temporaryFolder('images');
  await using site = await Site.start(driver);
  const cases = (await makeImages(folder.path)).filter(({ kind }) => kind === 'nasty');
  expect(cases.length).toBeGreaterThan(120);
  const found: string[] = [];
  for (const each of cases) {
    const failure = await roundTrip(site, folder.path, each).catch(messageOf);
    const isFine = failure === '' || (each.verdict === 'tree-or-refused' && REFUSED.test(failure));
    if (!isFine) found.push(`${each.name}: ${failure}`);
  }
  return found;
}

/** How the trees differ; empty when they do not. */
async function roundTrip(site: Site, folder: string, { name, layers }: ImageCase): Promise<string> {
  const blobs: Descriptor[] = [];
  for (const { mediaType, digest, size } of layers) {
    const blob = { mediaType, digest: parseDigest(digest), size };
    await site.store(blob, await readFile(blobPath(folder, name, digest)));
    blobs.push(blob);
  }
  const parent = await site.applied('', ...blobs.slice(0, -1));
  const image = await site.applied(parent, ...blobs.slice(-1));
  const older = parent === '' ? [] : await site.view(parent);
  const newer = await site.view(image);
  const layer = await site.compare(older, newer);
  expect(await site.compare(older, newer)).toEqual(layer);
  return differences(newer, await site.view(await site.applied(parent, layer)));
}
