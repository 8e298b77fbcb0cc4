// The same commands of a stock `ctr` on ballast alone and on a containerd of its own release come to the
// same: what they print is equal but for times, folders and numbers of snapshots.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { RELEASES, type Release } from '../interop/containerd.ts';
import { Alone, outcomeOf, plainContainerd, shown } from './site.ts';
import { writeSmallImage, type SmallImage } from './small-image.ts';

type Command = readonly string[];

for (const release of RELEASES) {
  test(`ctr of containerd ${release.name} sees on ballast what it sees on containerd`, async () => {
    const alone = await Alone.start(release);
    const folder = join(alone.folder, 'containerd');
    await mkdir(folder);
    const containerd = await plainContainerd(release, folder);
    const archive = join(alone.folder, 'image.tar');
    const image = await writeSmallImage(archive);
    const ours: string[] = [];
    const theirs: string[] = [];
    for (const command of commands(release, image, archive)) {
      const line = `$ ctr ${command.join(' ')}`;
      const [one, other] = await Promise.all([
        outcomeOf(alone.ctr(...command)),
        outcomeOf(containerd.ctr(...command)),
      ]);
      ours.push(line, ...shown(one, alone.folder));
      theirs.push(line, ...shown(other, folder));
    }
    // containerd collects it now or later; the ballast of this test collects nothing.
    const kept = (lines: readonly string[]): readonly string[] =>
      lines.filter((line) => !line.startsWith(image.index));
    expect(kept(ours)).toEqual(kept(theirs));
  });
}

function commands(release: Release, image: SmallImage, archive: string): readonly Command[] {
  const local = release.localImport;
  const tagLocal = release.name === '2.x' ? ['--local'] : [];
  return [
    ...namespaceCommands,
    ['images', 'import', ...local, archive],
    ...imageCommands(image, tagLocal),
    ...contentCommands(image),
    ...snapshotCommands('overlayfs', image.chain[1]),
    ['images', 'import', ...local, '--snapshotter', 'native', archive],
    ...snapshotCommands('native', image.chain[1]),
    ...leaseCommands,
    ...containerCommands(image),
    ['namespaces', 'rm', 'test'],
  ];
}

const namespaceCommands: readonly Command[] = [
  ['namespaces', 'ls'],
  ['namespaces', 'create', 'other', 'a=b', 'c=d'],
  ['namespaces', 'create', 'other'],
  ['namespaces', 'create', 'not/valid'],
  ['namespaces', 'ls'],
  ['namespaces', 'label', 'other', 'a=changed', 'c='],
  ['namespaces', 'label', 'unmade', 'x=y'],
  ['namespaces', 'ls'],
  ['namespaces', 'rm', 'other'],
  ['namespaces', 'rm', 'unmade'],
  ['namespaces', 'rm', 'missing'],
  ['namespaces', 'ls', '-q'],
];

const imageCommands = ({ reference }: SmallImage, local: Command): readonly Command[] => [
  ['images', 'ls'],
  ['images', 'ls', '-q'],
  ['images', 'ls', 'name==nothing'],
  ['images', 'ls', 'name=='],
  ['images', 'check'],
  ['images', 'tag', ...local, reference, 'example.org/other:1'],
  ['images', 'tag', ...local, reference, 'example.org/other:1'],
  ['images', 'tag', ...local, 'missing', 'example.org/other:2'],
  ['images', 'label', 'example.org/other:1', 'a=b'],
  ['images', 'label', 'example.org/other:1', `long=${'x'.repeat(4096)}`],
  ['images', 'label', 'missing', 'a=b'],
  ['images', 'ls'],
  ['images', 'usage', 'example.org/other:1'],
  ['images', 'rm', 'example.org/other:1'],
  ['images', 'rm', 'missing'],
  ['images', 'ls', '-q'],
  ['namespaces', 'ls'],
];

const contentCommands = ({ layers: [layer = ''], manifest }: SmallImage): readonly Command[] => [
  ['content', 'ls'],
  ['content', 'ls', '-q', `digest==${layer}`],
  ['content', 'get', manifest],
  ['content', 'get', `sha256:${'0'.repeat(64)}`],
  ['content', 'active'],
  ['content', 'label', layer, 'x=y'],
  ['content', 'label', layer, 'x='],
  ['content', 'label', `sha256:${'0'.repeat(64)}`, 'x=y'],
  ['content', 'rm', `sha256:${'0'.repeat(64)}`],
  ['content', 'ls'],
];

function snapshotCommands(snapshotter: string, top: string): readonly Command[] {
  const all: readonly Command[] = [
    ['ls'],
    ['tree'],
    ['info', top],
    ['info', 'missing'],
    ['usage', top],
    ['prepare', 'work', top],
    ['prepare', 'work', top],
    ['prepare', 'orphan', 'missing'],
    ['prepare', 'below', 'work'],
    ['view', 'seen', top],
    ['mounts', '/target', 'work'],
    ['mounts', '/target', 'seen'],
    ['mounts', '/target', top],
    ['commit', 'done', 'seen'],
    ['commit', 'done', 'work'],
    ['commit', 'done', 'work'],
    ['label', 'done', 'x=y'],
    ['info', 'done'],
    ['label', 'done', 'x='],
    ['ls'],
    ['tree'],
    ['rm', top],
    ['rm', 'seen', 'done'],
    ['rm', 'missing'],
    ['ls'],
  ];
  return all.map((command) => ['snapshots', '--snapshotter', snapshotter, ...command]);
}

const leaseCommands: readonly Command[] = [
  ['leases', 'ls'],
  ['leases', 'create', '--id', 'mine', '--expires', '24h', 'a=b'],
  ['leases', 'create', '--id', 'mine'],
  ['leases', 'ls'],
  ['leases', 'ls', '-q', 'id==mine'],
  ['leases', 'ls', 'id=='],
  ['leases', 'rm', 'mine'],
  ['leases', 'rm', 'mine'],
  ['leases', 'ls', '-q'],
];

const containerCommands = ({ reference }: SmallImage): readonly Command[] => [
  ['containers', 'create', reference, 'first'],
  ['containers', 'create', reference, 'first'],
  ['containers', 'create', 'missing', 'second'],
  ['containers', 'ls'],
  ['containers', 'ls', '-q'],
  ['containers', 'ls', '-q', 'id==missing'],
  ['containers', 'info', 'first'],
  ['containers', 'info', 'missing'],
  ['containers', 'label', 'first', 'a=b'],
  ['containers', 'label', 'first', `long=${'x'.repeat(4096)}`],
  ['containers', 'ls'],
  ['snapshots', 'ls'],
  ['containers', 'rm', 'missing'],
  ['containers', 'rm', 'first'],
  ['containers', 'ls', '-q'],
  ['snapshots', 'ls'],
];
