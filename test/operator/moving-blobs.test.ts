import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { cache, RELEASES } from '../interop/containerd.ts';
import { smallImage } from '../interop/images.ts';
import { Site } from '../interop/site.ts';
import { repository } from '../support/temporary.ts';
import { answerOf, check, printDropIn, startContainerd } from './site.ts';

/*
 * The two procedures of docs/operations.md, with the shell that stands there: blobs of a containerd that
 * has images move into ballast, and back.
 */

/** The shell block of docs/operations.md that contains `words`, with a site's folders and sockets. */
async function shellOf(words: string, site: Site): Promise<string> {
  const text = await readFile(join(repository, 'docs/operations.md'), 'utf8');
  const blocks = [...text.matchAll(/```sh\n([^]*?)```/g)].map(([, block = '']) => block);
  const found = blocks.filter((block) => block.includes(words));
  expect(found).toHaveLength(1);
  return (found[0] ?? '')
    .replaceAll('/var/lib/containerd', join(site.folder, 'root'))
    .replaceAll('/var/lib/ballast', site.root)
    .replaceAll('/run/ballast/plugin.sock', site.socket);
}

test.for(RELEASES)('blobs of containerd $name move into ballast, and back', async (release) => {
  const env = {
    ...process.env,
    PATH: `${join(cache, 'containerd', release.name, 'usr/bin')}:${process.env['PATH']}`,
  };
  const shell = async (script: string): Promise<void> => {
    expect(await answerOf('sh', ['-eu', '-c', script], env)).toMatchObject({ code: 0, err: '' });
  };
  const site = await Site.create();
  const image = await smallImage();
  const snapshotsOnly = await printDropIn(site, release);

  const before = await startContainerd(site, release, snapshotsOnly);
  const names = ['--base-name', image.baseName, '--snapshotter', 'ballast-overlay'];
  await before.ctr('images', 'import', ...release.local, ...names, image.archive);
  const moveBlobs = await shellOf('move_blobs()', site);
  // containerd runs and collects: a blob may go while it is moved.
  expect(await answerOf('sh', ['-eu', '-c', `${moveBlobs}\nmove_blobs`], env)).toMatchObject({
    code: 0,
  });
  await before.stop();
  await shell(`${moveBlobs}\nmove_blobs`);

  const moved = await startContainerd(site, release, await printDropIn(site, release, '--content'));
  const seen = await check(site);
  expect(seen.out).toContain('ok    content: containerd keeps its blobs in ballast');
  expect(seen.code).toBe(0);
  await moved.ctr(
    'images',
    'export',
    ...release.local,
    join(site.folder, 'moved.tar'),
    image.reference,
  );
  const blobs = await moved.ctr('content', 'ls', '-q');
  // What came after the move exists in ballast only.
  const label = ['images', 'label', image.reference, 'moved=yes'];
  await moved.ctr(...label);
  await moved.stop();

  const copy = (await shellOf('cp -n', site)).split('\n').find((line) => line.startsWith('cp -n'));
  await shell(copy ?? 'false');
  const back = await startContainerd(site, release, snapshotsOnly);
  expect(await back.ctr('content', 'ls', '-q')).toBe(blobs);
  await back.ctr(
    'images',
    'export',
    ...release.local,
    join(site.folder, 'back.tar'),
    image.reference,
  );
  expect((await check(site)).code).toBe(0);
});
