// The same commands of a stock `ctr` on ballast alone and on a containerd of its own release come to the
// same: what they print is equal but for times, folders and numbers of snapshots.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { RELEASES } from '../interop/containerd.ts';
import { loopFileSystem } from '../support/loop-fs.ts';
import { run } from '../support/run.ts';
import { COLLECT_WHEN_ASKED } from './client.ts';
import { sections } from './commands.ts';
import { Alone, outcomeOf, plainContainerd, shown } from './site.ts';
import { writeSmallImage } from './small-image.ts';

for (const release of RELEASES) {
  test(`ctr of containerd ${release.name} sees on ballast what it sees on containerd`, async () => {
    // For btrfs, on which the other snapshotters work as well.
    const fileSystem = await loopFileSystem('btrfs', 2048);
    onTestFinished(() => fileSystem[Symbol.asyncDispose]());
    const alone = await Alone.start(release, {
      parent: fileSystem.path,
      btrfs: true,
      gc: COLLECT_WHEN_ASKED,
    });
    const theirs = join(alone.folder, 'containerd');
    const ours = join(alone.folder, 'work');
    for (const folder of [ours, theirs]) await mkdir(folder);
    const containerd = await plainContainerd(release, theirs);
    for (const folder of [ours, theirs]) onTestFinished(() => unmountIn(folder));
    const image = await writeSmallImage(join(alone.folder, 'image.tar'));
    // containerd collects it now or later; the ballast of this test collects nothing.
    const kept = (line: string): boolean => !line.startsWith(image.index);
    for (const { what, lines } of sections(release, image)) {
      const one: string[] = [what];
      const other: string[] = [what];
      for (const line of lines) {
        const [left, right] = await Promise.all([
          outcomeOf(alone.sh(`cd work; ${line}`)),
          outcomeOf(containerd.sh(line)),
        ]);
        one.push(`$ ${line}`, ...shown(left, alone.folder, ours));
        other.push(`$ ${line}`, ...shown(right, theirs, theirs));
      }
      expect.soft(one.filter(kept)).toEqual(other.filter(kept));
    }
  });
}

/** What a failed line left mounted. */
async function unmountIn(folder: string): Promise<void> {
  await run('sh', ['-c', 'umount -R "$0" 2>&-; true', join(folder, 'at')]);
}
