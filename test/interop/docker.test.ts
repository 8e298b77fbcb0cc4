import { writeFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { run } from '../support/run.ts';
import { RELEASES } from './containerd.ts';
import { Docker } from './docker.ts';
import { smallImage } from './images.ts';
import { Site } from './site.ts';
import { expectBaseLine, listSnapshots, releaseMadeLayers } from './steps.ts';

const SNAPSHOTTER = 'ballast-overlay';
const [release] = RELEASES.filter(({ name }) => name === '2.x');
const NAME = 'ballast.invalid/small:v1';

test('Docker loads, runs, builds, commits while collections run, diffs, saves and prunes back to nothing', async () => {
  if (release === undefined) throw new Error('no containerd 2.x');
  const site = await Site.withContainerd(release);
  const before = await site.stored();
  const docker = await Docker.start(site, SNAPSHOTTER);
  const image = await smallImage();

  await docker.cli('load', '--input', image.archive);
  // umoci's layout knows a tag and no name, which Docker takes for one that it cannot ask for.
  await site.containerd.ctr('images', 'tag', image.tag, NAME);
  await site.containerd.ctr('images', 'rm', image.tag);
  const once = ['run', '--rm', '--network', 'none'];
  expect(await docker.cli(...once, NAME, 'cat', '/unusual/twin')).toBe('one file of two names\n');

  const script =
    'echo written >/etc/added; rm /etc/kept; mkdir /made; echo changed >>/unusual/twin';
  await docker.cli('run', '--name', 'writer', '--network', 'none', NAME, '/bin/sh', '-ec', script);
  const changes = (await docker.cli('diff', 'writer')).trim().split('\n').toSorted();
  expect(changes).toEqual(
    expect.arrayContaining(['A /etc/added', 'A /made', 'C /unusual/twin', 'D /etc/kept']),
  );

  for (let round = 0; round < 5; round++) {
    const committed = `ballast.invalid/committed:${round}`;
    await Promise.all([docker.cli('commit', 'writer', committed), collections(site)]);
    await site.containerd.ctr('content', 'prune', 'references').catch(() => undefined);
    const seen = await docker.cli(...once, committed, 'cat', '/etc/added', '/unusual/twin');
    expect(seen).toBe('written\none file of two names\nchanged\n');
  }

  await build(docker, join(site.folder, 'build'));
  expect(await docker.cli(...once, 'ballast.invalid/built:v1', 'cat', '/built')).toBe('built\n');

  const saved = join(site.folder, 'saved.tar');
  await docker.cli('save', '--output', saved, 'ballast.invalid/committed:0');
  expect(await run('tar', ['-tf', saved])).toContain('index.json');

  await docker.cli('rm', 'writer');
  await docker.cli('system', 'prune', '--all', '--force', '--volumes');
  expect(await docker.cli('images', '--all', '--quiet')).toBe('');
  await docker.stop();
  await releaseMadeLayers(site);
  await site.containerd.ctr('content', 'prune', 'references').catch(() => undefined);
  expect(await listSnapshots(site, SNAPSHOTTER)).toEqual([]);
  await expectBaseLine(site, before);
});

/** As many as there is time for meanwhile. */
async function collections(site: Site): Promise<void> {
  for (let n = 0; n < 5; n++) {
    await site.containerd.ctr('content', 'prune', 'references').catch(() => undefined);
  }
}

async function build(docker: Docker, context: string): Promise<void> {
  await mkdir(context);
  const steps = [`FROM ${NAME}`, 'COPY file /copied', 'RUN cat /copied >/built && rm /copied'];
  await writeFile(join(context, 'Dockerfile'), `${steps.join('\n')}\n`);
  await writeFile(join(context, 'file'), 'built\n');
  const flags = ['--network', 'none', '--tag', 'ballast.invalid/built:v1'];
  await docker.cli('build', ...flags, context);
}
