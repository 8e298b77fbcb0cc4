// `ctr images import`, `export` and `tag` as they are by themselves, without --local: what they print and leave
// on ballast alone is what they do on a containerd of its own release, which has Transfer since 1.7.
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { RELEASES } from '../interop/containerd.ts';
import { readTar } from '../support/read-tar.ts';
import { END } from '../support/tar.ts';
import { digestOf, dockerArchive, severalImages, tarOf } from './archives.ts';
import { COLLECT } from './client.ts';
import { Alone, outcomeOf, plainContainerd, shown } from './site.ts';
import { writeSmallImage } from './small-image.ts';

type Command = readonly string[];

for (const release of RELEASES.filter(({ name }) => name !== '1.6')) {
  /** 1.7 transfers when it is told to. */
  const flags = release.name === '1.7' ? ['--local=false'] : [];

  test(`ctr of containerd ${release.name} transfers on ballast as on containerd`, async () => {
    const alone = await Alone.start(release, { gc: COLLECT });
    const folder = join(alone.folder, 'containerd');
    await mkdir(folder);
    const containerd = await plainContainerd(release, folder);
    const archives = join(alone.folder, 'archives');
    await mkdir(archives);
    const { reference } = await writeSmallImage(join(archives, 'small.tar'));
    await writeFile(join(archives, 'several.tar'), severalImages());
    await writeFile(join(archives, 'docker.tar'), dockerArchive());
    await writeFile(join(archives, 'none.tar'), Buffer.alloc(1024));
    for (const command of commands(release.name, reference)) {
      const at = (base: string): Command =>
        command.flatMap((word) => {
          if (word === 'import' || word === 'export') return [word, ...flags];
          return word.endsWith('.tar')
            ? [join(word.startsWith('out') ? base : archives, word)]
            : [word];
        });
      const [one, other] = await Promise.all([
        outcomeOf(alone.ctr(...at(alone.folder))),
        outcomeOf(containerd.ctr(...at(folder))),
      ]);
      expect([command, one.ok], `${one.text}\n${other.text}`).toEqual([command, other.ok]);
      const [ours, theirs] = [shown(one, alone.folder), shown(other, folder)];
      const line = `$ ctr ${command.join(' ')}`;
      if (command[1] === 'import') expectSameStart(line, ours, theirs);
      else expect([line, ...ours]).toEqual([line, ...theirs]);
      const out = command.find((word) => word.startsWith('out'));
      if (out === undefined || !one.ok) continue;
      const written = await readFile(join(alone.folder, out));
      expect(written.length).toBeGreaterThan(1024);
      let theirFile = await readFile(join(folder, out));
      // A containerd answers before its ctr has read all: that may end too early then.
      while (!theirFile.subarray(-END.length).equals(END)) {
        await containerd.ctr(...at(folder));
        theirFile = await readFile(join(folder, out));
      }
      expect([line, ...members(written)]).toEqual([line, ...members(theirFile)]);
    }
  });
}

/** Docker's list of images is in the random order of Go's maps. */
const members = (archive: Buffer): readonly unknown[] =>
  readTar(archive).entries.map(({ body, ...entry }) => {
    if (entry.path !== 'manifest.json') return { ...entry, body };
    const images: unknown = JSON.parse(body.map(([, bytes]) => bytes).join(''));
    if (!Array.isArray(images)) throw new Error('manifest.json is no list');
    return images.map((image) => JSON.stringify(image)).toSorted();
  });

/**
 * What ctr is told of it shows, or not, as it is just ending then: one may show more frames than the other.
 */
function expectSameStart(line: string, one: readonly string[], other: readonly string[]): void {
  const length = Math.min(one.length, other.length) - 1;
  expect([line, ...one.slice(0, length)]).toEqual([line, ...other.slice(0, length)]);
}

function commands(release: string, reference: string): readonly Command[] {
  // What nobody refers to goes on both: when a containerd would collect it otherwise is its own affair.
  const look: readonly Command[] = [
    ['leases', 'create', '--id', 'to-collect'],
    ['leases', 'rm', '--sync', 'to-collect'],
    ['images', 'ls'],
    ['content', 'ls'],
    ['snapshots', 'ls'],
    ['leases', 'ls'],
  ];
  // For all platforms a 1.7 finds no snapshotter; a 2.x, as we do, has one for all.
  const packed = release === '1.7' ? ['--no-unpack'] : [];
  const tags: readonly Command[] = [
    ['images', 'tag', reference, 'example.invalid/other:1', 'example.invalid/other:2'],
    ['images', 'tag', reference, 'example.invalid/other:1'],
    ['images', 'tag', 'missing', 'example.invalid/other:1'],
    ['images', 'tag', reference, 'Not A Reference'],
    ...look,
  ];
  return [
    ['images', 'import', 'small.tar'],
    ...look,
    ['images', 'import', 'small.tar'],
    ['images', 'ls'],
    ...(release === '1.7' ? [] : tags),
    ['images', 'import', '--no-unpack', '--platform', 'linux/arm64', 'several.tar'],
    ...look,
    ['images', 'import', 'several.tar'],
    ['snapshots', 'info', digestOf(tarOf(['four', Buffer.from('four\n')]))],
    ...look,
    ['images', 'import', '--index-name', 'whole', '--all-platforms', ...packed, 'several.tar'],
    ...look,
    ['images', 'import', '--base-name', 'example.invalid/base', '--digests', 'several.tar'],
    ['images', 'ls'],
    ['images', 'import', '--base-name', 'example.invalid/both', '--label', 'a=b', 'several.tar'],
    ['images', 'ls'],
    ['images', 'import', '--digests', '--skip-digest-for-named', 'several.tar'],
    ['images', 'ls'],
    ['images', 'import', 'docker.tar'],
    ...look,
    ['images', 'import', 'none.tar'],
    ['images', 'import', '--platform', 'windows/arm64', ...packed, 'small.tar'],
    ['images', 'import', '--snapshotter', 'missing', 'small.tar'],
    ...look,
    ['images', 'export', 'out1.tar', reference],
    ['images', 'export', 'out2.tar', 'example.invalid/both:1'],
    ['images', 'export', '--all-platforms', 'out3.tar', 'example.invalid/both:1', 'whole'],
    ['images', 'export', '--platform', 'linux/arm64', 'out4.tar', 'example.invalid/both:1'],
    ['images', 'export', '--platform', 'linux/s390x', 'out5.tar', 'example.invalid/both:1'],
    ['images', 'export', '--skip-manifest-json', 'out6.tar', reference, 'one.invalid/a:1'],
    ['images', 'export', 'out7.tar', 'docker.io/library/short:latest', 'one.invalid/a:1'],
    ['images', 'export', 'out8.tar', 'missing'],
    ...look,
    ['images', 'pull', 'example.invalid/nothing:1'],
  ];
}
