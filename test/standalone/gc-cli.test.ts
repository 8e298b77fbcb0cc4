// `ballast gc`, over what a stock `ctr` made.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parseDigest } from '../../src/base/digest.ts';
import { connectStore } from '../../src/grpc/proxy/containerd-store.ts';
import { RELEASES } from '../interop/containerd.ts';
import { Daemon } from '../support/daemon.ts';
import { run } from '../support/run.ts';
import { repository, temporaryFolder } from '../support/temporary.ts';
import { COLLECT_WHEN_ASKED, inside } from './client.ts';
import { Alone, outcomeOf } from './site.ts';
import { writeSmallImage } from './small-image.ts';

const ballast = (...args: readonly string[]): Promise<string> =>
  run(join(repository, 'bin/ballast'), args);

/** With an image, unpacked. */
async function ready() {
  const [release] = RELEASES.filter(({ name }) => name === '2.x');
  if (release === undefined) throw new Error('no containerd 2.x');
  const alone = await Alone.start(release, { gc: COLLECT_WHEN_ASKED });
  const archive = join(alone.folder, 'image.tar');
  const image = await writeSmallImage(archive);
  await alone.ctr('images', 'import', ...release.local, archive);
  const where = ['--address', alone.socket, '--namespace', 'test'];
  const gc = (verb: string, ...args: readonly string[]): Promise<string> =>
    ballast('gc', verb, ...where, ...args);
  return { alone, image, gc };
}

test('gc why: the way from the image, and a lease with its age, its end and who made it', async () => {
  const { alone, image, gc } = await ready();
  const { reference, manifest, config } = image;
  const [layer = ''] = image.layers;
  const byImage = new RegExp(`^content ${layer} is kept by
  image ${reference}, \\d+ s old
    target +content ${manifest}
    containerd.io/gc.ref.content.l.0 +content ${layer}
$`);
  expect(await gc('why', layer)).toMatch(byImage);
  // A beginning is enough, with the algorithm or without.
  expect(await gc('why', layer.slice(0, 20))).toMatch(byImage);
  expect(await gc('why', layer.slice(7, 20))).toMatch(byImage);

  const [base, top] = image.chain;
  expect((await gc('why', base)).split('\n').slice(2)).toEqual([
    `    target                                   content ${manifest}`,
    `    containerd.io/gc.ref.content.config      content ${config}`,
    `    containerd.io/gc.ref.snapshot.overlayfs  snapshots/overlayfs ${top}`,
    `    parent                                   snapshots/overlayfs ${base}`,
    '',
  ]);
  expect(await gc('why', reference)).toMatch(/ is kept by\n {2}itself, \d+ s old\n$/);

  const end = '2100-01-01T00:00:00Z';
  using store = connectStore(alone.socket);
  const labels = { 'containerd.io/gc.expire': end, owner: 'a builder' };
  await store.createLease(inside('test'), 'building', new Map(Object.entries(labels)));
  await store.addToLease(inside('test'), 'building', parseDigest(layer));
  expect(await gc('why', layer)).toMatch(
    new RegExp(`is kept by
  lease building, \\d+ s old, until ${end}, "owner=a builder"
    lease +content ${layer}
  image ${reference}, `),
  );
  expect(JSON.parse(await gc('why', '--json', layer))).toMatchObject([
    {
      node: { type: 'content', namespace: 'test', key: layer },
      chains: [
        { kind: 'leases', expiresAt: /^2100/, labels, links: [{ by: '' }, { by: 'lease' }] },
        { kind: 'images', links: [{}, { by: 'target' }, {}] },
      ],
    },
  ]);
});

test('gc why: what nothing keeps, and since when at the earliest', async () => {
  const { alone, gc } = await ready();
  const text = 'left over';
  const digest = `sha256:${(await alone.sh(`printf '${text}' | sha256sum`)).slice(0, 64)}`;
  await alone.sh(`printf '${text}' | ctr content ingest ref`);
  expect(await gc('why', digest)).toMatch(
    new RegExp(`^content ${digest} is kept by nothing, since \\d{4}-.*Z at the earliest\n$`),
  );
  await alone.sh(`ctr content label ${digest} containerd.io/gc.root=now`);
  expect(await gc('why', digest)).toMatch(/\n {2}itself, with the label containerd.io\/gc.root\n$/);
  const before = Date.now();
  await gc('run');
  const after = Date.now();
  await alone.sh(`ctr content label ${digest} containerd.io/gc.root=`);
  const [explained] = JSON.parse(await gc('why', '--json', digest));
  expect(explained.chains).toEqual([]);
  expect(Date.parse(explained.notBefore)).toBeGreaterThanOrEqual(before);
  expect(Date.parse(explained.notBefore)).toBeLessThanOrEqual(after);
});

test('gc plan --without says what gc run removes once the image is gone', async () => {
  const { alone, image, gc } = await ready();
  const { reference } = image;
  // The archive's own index, which nothing refers to.
  expect(await gc('plan')).toContain(image.index);
  await gc('run');
  expect(await gc('plan')).toBe('a collection would remove nothing\n');
  const plan = await gc('plan', '--without', reference);
  for (const key of [image.manifest, image.config, ...image.layers, ...image.chain]) {
    expect(plan).toMatch(new RegExp(`B  test +\\S+ ${key}\n`));
  }
  const [, what = ''] = /\na collection would remove (?<what>.*)\n(?<alone>.*)\n$/.exec(plan) ?? [];
  expect(what).toMatch(/^\S+ KiB: 4 content \(\d+ B\), 2 snapshots\/overlayfs \(\S+ KiB\)$/);
  const [bytes] = what.split(':');
  expect(plan).toContain(`image ${reference} alone keeps ${bytes}, and shares 0 B with others\n`);
  const json = JSON.parse(await gc('plan', '--without', reference, '--json'));
  expect(json.goes).toHaveLength(6);

  // Nothing was freed by that.
  expect(await gc('plan')).toBe('a collection would remove nothing\n');
  await alone.ctr('images', 'tag', '--local', reference, 'small.invalid/again:1');
  expect(await gc('plan', '--without', reference)).toBe(
    `a collection would remove nothing\nimage ${reference} alone keeps 0 B, and shares ${bytes} with others\n`,
  );
  await alone.ctr('images', 'rm', reference, 'small.invalid/again:1');
  expect(await gc('run')).toMatch(new RegExp(`^removed ${escaped(what)} in \\d+ ms, `));
  expect(await gc('run', '--json')).toContain('"totals": {}');
  expect(await alone.ctr('content', 'ls', '-q')).toBe('');
});

const escaped = (text: string): string => text.replaceAll(/[()]/g, String.raw`\$&`);

test('gc: what cannot be answered says why', async () => {
  const { alone, image, gc } = await ready();
  const said = async (outcome: Promise<string>): Promise<string> => {
    const { ok, text } = await outcomeOf(outcome);
    expect(ok).toBe(false);
    return text.replace(/^.*ballast gc [^:]*: /, '');
  };
  expect(await said(gc('why', 'nobody.invalid/x:1'))).toContain(
    'ballast: "nobody.invalid/x:1" in the namespace "test": not found',
  );
  expect(await said(gc('plan', '--without', 'nobody'))).toContain(
    'ballast: image or lease "nobody" in the namespace "test": not found',
  );
  const program = join(repository, 'bin/ballast');
  const env = `BALLAST_ADDRESS=${alone.socket} CONTAINERD_NAMESPACE=test`;
  expect(await alone.sh(`${env} ${program} gc why ${image.reference}`)).toContain(' itself, ');
  // The daemon that the config names; then one that lacks a snapshotter.
  const file = join(alone.folder, 'ballast.toml');
  expect(await ballast('gc', 'plan', '--config', file)).toContain(image.index);
  await alone.sh('ctr snapshots --snapshotter native prepare key');
  const config = await readFile(file, 'utf8');
  await writeFile(file, config.slice(0, config.indexOf('[snapshotter.native]')));
  await alone.kill();
  for (const args of [['why', image.index], ['plan'], ['run']]) {
    expect(await said(gc(args[0] ?? '', ...args.slice(1)))).toContain(
      'nothing is collected while snapshotters that have snapshots are not available: native',
    );
  }

  await using root = await temporaryFolder('plugin');
  await using plugin = await Daemon.start({ root: root.path, snapshotter: 'native' });
  for (const args of [['why', 'x'], ['plan'], ['run']]) {
    expect(await said(ballast('gc', ...args, '--address', plugin.socket))).toContain(
      'containerd decides what is collected on a plugin socket: ',
    );
  }
});
