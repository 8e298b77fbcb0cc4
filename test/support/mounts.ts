import { readFileSync, readlinkSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { openSubvolume } from '../../src/platform/linux/btrfs.ts';
import { close, O, open } from '../../src/platform/linux/files.ts';
import type { Mount } from '../../src/snapshotters/snapshotter.ts';
import { run } from './run.ts';
import { makeTemporaryRoot } from './temporary.ts';

/** Performs what a snapshotter returned, as a client does. */
export async function performMounts(
  mounts: readonly Mount[],
): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await makeTemporaryRoot('mounted');
  for (const mount of mounts) {
    await run('sh', ['-c', 'cd "$0" && mount "$@"', ...mountArguments(mount), path]);
  }
  return {
    path,
    async [Symbol.asyncDispose]() {
      await run('umount', ['-R', path]).catch(() => run('umount', ['-l', path]));
      await rm(path, { recursive: true, force: true });
    },
  };
}

/**
 * Where to be, and what to say there: the kernel takes a page of options, which many layers exceed, so
 * that their paths have to be short.
 */
function mountArguments({ type, source, options }: Mount): readonly string[] {
  const text = options.join(',');
  const layers = /(?<=lowerdir=).*?(?=\/\d+\/fs:)/.exec(text)?.[0];
  const shortened = layers === undefined ? text : text.replaceAll(`${layers}/`, '');
  return [layers ?? '/', '-t', type, '-o', shortened, source];
}

/** The directory that holds what was written into an active snapshot itself, or what a view shows of its parent. */
export function ownDirectory(mounts: readonly Mount[]): string {
  const mount = mounts.at(-1);
  if (!mount) throw new Error('no mounts');
  if (mount.type === 'bind') return mount.source;
  if (mount.type === 'btrfs') return subvolumeDirectory(mount);
  const option = (name: string) =>
    mount.options.find((text) => text.startsWith(`${name}=`))?.slice(name.length + 1);
  const directory = option('upperdir') ?? option('lowerdir')?.split(':')[0];
  if (!directory) throw new Error(`no directory in ${JSON.stringify(mount)}`);
  return directory;
}

/** Where a subvolume can be seen without mounting it: below a mount of its whole file system. */
function subvolumeDirectory({ source, options }: Mount): string {
  const id = /^subvolid=(\d+)$/.exec(options[0] ?? '')?.[1];
  const fd = open(mountPointOf(source), O.RDONLY | O.DIRECTORY);
  try {
    const root = openSubvolume(fd, Number(id));
    try {
      return readlinkSync(`/proc/self/fd/${root}`);
    } finally {
      close(root);
    }
  } finally {
    close(fd);
  }
}

/** Of the mount that shows all of a device's file system. */
function mountPointOf(device: string): string {
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [, , , root, point] = line.split(' ');
    if (root === '/' && line.includes(` - btrfs ${device} `) && point !== undefined) return point;
  }
  throw new Error(`${device} is not mounted as a whole`);
}
