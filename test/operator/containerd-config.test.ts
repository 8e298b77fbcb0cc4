import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { RELEASES } from '../interop/containerd.ts';
import { smallImage } from '../interop/images.ts';
import { Site } from '../interop/site.ts';
import { importImage } from '../interop/steps.ts';
import { run } from '../support/run.ts';
import { repository } from '../support/temporary.ts';
import { ballast, check, configOf, ctrOf, printDropIn, startContainerd } from './site.ts';

/* What `config print` prints, in real containerds; and what `check` sees there. */

const loaded = (plugins: string, type: string, id: string): string | undefined =>
  plugins
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .find(([first, second]) => first === type && second === id)
    ?.at(-1);

test.for(RELEASES)(
  'containerd $name loads the snapshotters and keeps its own blobs',
  async (release) => {
    const site = await Site.create();
    const containerd = await startContainerd(site, release, await printDropIn(site, release));
    const plugins = await containerd.ctr('plugins', 'ls');
    expect(loaded(plugins, 'io.containerd.snapshotter.v1', 'ballast-overlay')).toBe('ok');
    expect(loaded(plugins, 'io.containerd.snapshotter.v1', 'ballast-native')).toBe('ok');
    expect(loaded(plugins, 'io.containerd.snapshotter.v1', 'ballast-btrfs')).toBe('ok');
    expect(loaded(plugins, 'io.containerd.content.v1', 'content')).toBe('ok');
    if (release.name !== '1.6') {
      expect(loaded(plugins, 'io.containerd.transfer.v1', 'local')).toBe('ok');
    }
    // What config.toml switches off stays off: the lists of both files are joined.
    expect(loaded(plugins, 'io.containerd.nri.v1', 'nri')).toBeUndefined();

    const snapshots = ['snapshots', '--snapshotter', 'ballast-native'];
    await containerd.ctr(...snapshots, 'prepare', 'one');
    expect(await containerd.ctr(...snapshots, 'ls')).toMatch(/^one\s+Active/m);

    const { code, out } = await check(site);
    expect(out.split('\n').slice(1, -1)).toEqual([
      'ok    snapshotter ballast-overlay: containerd has loaded it',
      'ok    snapshotter ballast-native: containerd has loaded it',
      'ok    snapshotter ballast-btrfs: containerd has loaded it',
      'note  content: containerd keeps its blobs in a store of its own (content)',
    ]);
    expect(code).toBe(0);
  },
);

test('what is printed claims rebase for overlay alone, and not in a user namespace', async () => {
  const site = await Site.create();
  const claims = (dropIn: string) =>
    [...dropIn.matchAll(/^\[proxy_plugins\."([^"]+)"\](?:\n {2}.*)*"rebase"/gm)].map(
      ([, name]) => name,
    );
  const [print, config] = ['config print containerd --version 2.x --config', configOf(site)];
  const ballast = [join(repository, 'bin/ballast'), ...print.split(' '), config];
  expect(claims(await run('env', ballast))).toEqual(['ballast-overlay']);
  expect(claims(await run('unshare', ['--user', '--map-root-user', ...ballast]))).toEqual([]);
});

test.for(RELEASES)(
  'containerd $name with --content keeps its blobs in ballast',
  async (release) => {
    const site = await Site.withContainerd(release);
    const plugins = await site.containerd.ctr('plugins', 'ls');
    expect(loaded(plugins, 'io.containerd.content.v1', 'ballast-content')).toBe('ok');
    expect(loaded(plugins, 'io.containerd.content.v1', 'content')).toBeUndefined();
    const { code, out } = await check(site);
    expect(out).toContain('ok    content: containerd keeps its blobs in ballast');
    expect(code).toBe(0);
  },
);

test.for(RELEASES)('check names what containerd $name knows and ballast lacks', async (release) => {
  const site = await Site.withContainerd(release);
  await importImage(site, await smallImage(), 'ballast-overlay', release.local);
  expect((await check(site)).code).toBe(0);

  const blobs = await site.containerd.ctr('content', 'ls');
  const [, config = '', chain = ''] =
    /^(sha256:\w+).*gc\.ref\.snapshot\.ballast-overlay=(sha256:\w+)/m.exec(blobs) ?? [];
  // Behind containerd's back:
  const direct = (...args: readonly string[]) =>
    run(ctrOf(release), ['--address', site.socket, ...args]);
  const snapshots = ['snapshots', '--snapshotter', 'ballast-overlay'];
  const [top = ''] = new RegExp(`^\\S+${chain}`, 'm').exec(await direct(...snapshots, 'ls')) ?? [];
  await direct(...snapshots, 'rm', top);
  await direct('content', 'rm', config);

  const { code, out } = await check(site);
  const fault = `FAULT namespace ${site.namespace}: not in ballast:`;
  expect(out).toContain(`${fault} 1 blob: ${config}; move them`);
  expect(out).toContain(`${fault} 1 snapshot of ballast-overlay: "${chain}" of an image`);
  expect(code).toBe(1);
});

test('check tells a containerd that was never told of ballast', async () => {
  const [release] = RELEASES.slice(-1);
  if (release === undefined) throw new Error('no release');
  const site = await Site.create();
  await startContainerd(site, release, 'version = 2\n');
  const { code, out, err } = await check(site);
  expect(out).toMatch(/FAULT snapshotter ballast-overlay: containerd does not know it; put what/);
  expect([code, err]).toEqual([1, 'ballast: check: 3 faults, see above\n']);
});

test('check names the socket on which nobody answers', async () => {
  const site = await Site.create();
  const nobody = await check(site);
  expect(nobody).toMatchObject({ code: 1, out: '' });
  expect(nobody.err).toMatch(
    /^ballast: no containerd answers on \S+containerd\.sock: connect ENOENT \S+; is it running/,
  );
  const swapped = await ballast('check', '--config', configOf(site), '--containerd', site.socket);
  expect([swapped.code, swapped.err]).toEqual([
    1,
    expect.stringContaining("is not containerd's socket"),
  ]);
  const config = await readFile(configOf(site), 'utf8');
  const without = join(site.folder, 'without.toml');
  await writeFile(without, config.replace(/^containerd_address.*$/m, ''));
  const noAddress = await ballast('check', '--config', without);
  expect(noAddress.err).toContain('by --containerd SOCKET or as containerd_address');
});
