// `ballast gc` on a plugin root: containerd decides, and its own records say why.
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { run } from '../support/run.ts';
import { repository } from '../support/temporary.ts';
import { writeSmallImage } from '../standalone/small-image.ts';
import { RELEASES } from './containerd.ts';
import { Site } from './site.ts';

for (const release of RELEASES) {
  test(`gc why says what keeps a thing in containerd ${release.name}`, async () => {
    const site = await Site.withContainerd(release);
    const { containerd, namespace, socket, folder } = site;
    const where = ['--address', socket, '--namespace', namespace];
    const gc = (...args: readonly string[]): Promise<string> =>
      run(join(repository, 'bin/ballast'), ['gc', ...args, ...where]);

    const archive = join(folder, 'small.tar');
    const image = await writeSmallImage(archive);
    const [layer = ''] = image.layers;
    const unpack = ['--snapshotter', 'ballast-overlay', archive];
    await containerd.ctr('images', 'import', ...release.local, ...unpack);
    const { reference, manifest } = image;
    const decides = new RegExp(
      `^containerd \\S+ on ${folder}/containerd.sock decides; by its records\n`,
    );
    const why = await gc('why', layer);
    expect(why).toMatch(decides);
    expect(why.split('\n').slice(1)).toEqual([
      `content ${layer} is kept by`,
      expect.stringMatching(new RegExp(`^ {2}image ${reference}, \\d+ s old$`)),
      `    target                            content ${manifest}`,
      `    containerd.io/gc.ref.content.l.0  content ${layer}`,
      '',
    ]);
    const [base, top] = image.chain;
    expect(await gc('why', base)).toContain(
      `    parent                                         snapshots/ballast-overlay ${base}\n`,
    );

    await containerd.ctr('snapshots', '--snapshotter', 'ballast-overlay', 'prepare', 'work', top);
    const lease = (await containerd.ctr('leases', 'create', 'owner=someone')).trim();
    expect(await gc('why', lease)).toMatch(/ itself, \d+ s old, until \S+Z, owner=someone\n$/);
    const text = await gc('why', 'work');
    expect(text.replace(decides, '')).toMatch(
      /^snapshots\/ballast-overlay work is kept by( nothing, since \S+ at the earliest|\n.*gc.root)\n$/,
    );

    // containerd collects, and does what was said.
    await containerd.ctr('leases', 'create', '--id', 'ending');
    await containerd.ctr('leases', 'rm', '--sync', 'ending');
    expect(await containerd.ctr('content', 'ls', '-q')).toContain(layer);
    const snapshots = await containerd.ctr('snapshots', '--snapshotter', 'ballast-overlay', 'ls');
    expect(snapshots.includes('work ')).toBe(!text.includes('is kept by nothing'));
    expect(snapshots).toContain(base);
    await containerd.ctr('images', 'rm', '--sync', reference);
    await expect(gc('why', layer)).rejects.toThrow('not found');
    await expect(gc('plan')).rejects.toThrow('containerd decides what is collected');
    await expect(gc('run')).rejects.toThrow('containerd decides what is collected');
    await containerd.stopDaemon();
    await expect(gc('why', layer)).rejects.toThrow(
      `containerd on ${folder}/containerd.sock decides, and does not answer: `,
    );
  });
}
