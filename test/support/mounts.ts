import { rm } from 'node:fs/promises';
import type { Mount } from '../../src/snapshotters/snapshotter.ts';
import { run } from './run.ts';
import { makeTemporaryRoot } from './temporary.ts';

/** Performs what a snapshotter returned, as a client does. */
export async function performMounts(
  mounts: readonly Mount[],
): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await makeTemporaryRoot('mounted');
  for (const mount of mounts) {
    await run('mount', ['-t', mount.type, '-o', mount.options.join(','), mount.source, path]);
  }
  return {
    path,
    async [Symbol.asyncDispose]() {
      await run('umount', ['-R', path]).catch(() => run('umount', ['-l', path]));
      await rm(path, { recursive: true, force: true });
    },
  };
}

/** The directory that holds what was written into an active snapshot itself, or what a view shows of its parent. */
export function ownDirectory(mounts: readonly Mount[]): string {
  const mount = mounts.at(-1);
  if (!mount) throw new Error('no mounts');
  if (mount.type === 'bind') return mount.source;
  const option = (name: string) =>
    mount.options.find((text) => text.startsWith(`${name}=`))?.slice(name.length + 1);
  const directory = option('upperdir') ?? option('lowerdir')?.split(':')[0];
  if (!directory) throw new Error(`no directory in ${JSON.stringify(mount)}`);
  return directory;
}
