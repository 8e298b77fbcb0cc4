import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { run } from './run.ts';
import { makeTemporaryRoot, temporaryFolder } from './temporary.ts';

/** Where images lie; scripts/test names a folder of its own, and clears what a killed test left there. */
const IMAGES = process.env['BALLAST_TEST_IMAGES'] ?? '/dev/shm/proof';

export interface MountedImage extends AsyncDisposable {
  readonly image: string;
  /** Where the file system is mounted. */
  readonly path: string;
  /** Mounts it anew, read-only or writable. */
  remount(mode: 'ro' | 'rw'): Promise<void>;
}

/** Mounts an image through a loop device, which the kernel frees with the mount; disposing deletes the image. */
export async function mountImage(image: string): Promise<MountedImage> {
  const path = await makeTemporaryRoot('mount');
  try {
    await run('mount', ['-o', 'loop', image, path]);
  } catch (error) {
    await rm(path, { recursive: true });
    await rm(dirname(image), { recursive: true });
    throw error;
  }
  return {
    image,
    path,
    async remount(mode) {
      await run('mount', ['-o', `remount,${mode}`, path]);
    },
    async [Symbol.asyncDispose]() {
      await run('umount', [path]).catch(() => run('umount', ['-l', path]));
      await rm(path, { recursive: true });
      await rm(dirname(image), { recursive: true });
    },
  };
}

export const fileSystemFor = (driver: string): 'ext4' | 'btrfs' =>
  driver === 'btrfs' ? 'btrfs' : 'ext4';

/** What a driver needs below its root; everything but btrfs works on what /tmp is on. */
export function rootFor(
  driver: string,
  what: string,
): Promise<AsyncDisposable & { readonly path: string }> {
  return driver === 'btrfs' ? loopFileSystem('btrfs', 2048) : temporaryFolder(what);
}

/** A new file system in memory. */
export async function loopFileSystem(
  type: 'ext4' | 'btrfs' | 'xfs',
  sizeMb: number,
  options: readonly string[] = [],
): Promise<MountedImage> {
  const image = await imagePath(type);
  await run('truncate', ['-s', `${sizeMb}M`, image]);
  const quiet = type === 'ext4' ? ['-q', '-m', '0'] : ['-q'];
  await run(`mkfs.${type}`, [...quiet, ...options, image]);
  return mountImage(image);
}

/** A name for an image in memory, in a folder of its own. */
export async function imagePath(what: string): Promise<string> {
  await mkdir(IMAGES, { recursive: true });
  return join(await mkdtemp(join(IMAGES, `${what}-`)), 'image');
}
