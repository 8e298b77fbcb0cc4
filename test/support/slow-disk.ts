import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from './run.ts';
import { makeTemporaryRoot, repository } from './temporary.ts';
import { imagePath } from './loop-fs.ts';

/** Where the load generator, the slow disk and the reference are. */
export const shared = process.env['SHARED'] ?? join(repository, '../shared');
const script = join(shared, 'slowdisk/slowdisk.sh');

/** Why tests on a slow disk can't run here, or undefined when they can. */
export const slowDiskMissing = existsSync(script)
  ? undefined
  : `${script} is not there: power cuts and disk faults are NOT tested here (SHARED names the folder)`;

export interface DiskCounts {
  readonly read: number;
  readonly write: number;
  readonly sync: number;
}

/**
 * A file system on a disk that can be slow, fail, hang, lose its power. Processes that wait for a hung
 * disk can't be killed: disposing releases it first, so dispose the disk's daemons *after* `release`.
 */
export class SlowDisk implements AsyncDisposable {
  readonly #folder: string;
  readonly #devices: string[] = [];
  /** Where the file system is mounted. */
  readonly path: string;

  private constructor(folder: string) {
    this.#folder = folder;
    this.path = join(folder, 'fs');
  }

  static async up(
    options: { sizeMb?: number; syncUs?: number; fileSystem?: 'ext4' | 'btrfs' | 'xfs' } = {},
  ): Promise<SlowDisk> {
    if (slowDiskMissing) throw new Error(slowDiskMissing);
    const folder = await makeTemporaryRoot('slowdisk');
    const { sizeMb = 2048, syncUs = 0, fileSystem = 'ext4' } = options;
    await run(script, [
      'up',
      folder,
      '--size',
      `${sizeMb}M`,
      '--fs',
      fileSystem,
      '--sync-us',
      String(syncUs),
    ]);
    return new SlowDisk(folder);
  }

  /** Settings as `slowdisk.sh` knows them: sync_errno, hang, sync_us, ... */
  async set(settings: Readonly<Record<string, string | number>>): Promise<void> {
    const args = Object.entries(settings).map(([key, value]) => `${key}=${value}`);
    await run(script, ['set', this.#folder, ...args]);
  }

  /** No hang, no fault. */
  async heal(): Promise<void> {
    await this.set({ hang: 'none', sync_errno: 0, write_errno: 0, read_errno: 0, drop: 0 });
  }

  /**
   * What is on the disk counts from here on, nothing in memory. By another loop device, as a mount
   * namespace of somebody else may keep the file system of the first one alive, in its broken state.
   */
  async remount(): Promise<void> {
    await run('umount', [this.path]);
    const disk = join(this.#folder, 'fuse/disk');
    const device = (await run('losetup', ['-f', '--show', disk])).trim();
    this.#devices.push(device);
    await run('mount', [device, this.path]);
  }

  /** How many requests reached the disk so far. */
  async counts(): Promise<DiskCounts> {
    const text = await run(script, ['show', this.#folder]);
    const count = (kind: string): number => {
      const found = new RegExp(`^${kind}_count=(\\d+)$`, 'm').exec(text);
      if (!found) throw new Error(`slowdisk.sh show has no ${kind}_count: ${text}`);
      return Number(found[1]);
    };
    return { read: count('read'), write: count('write'), sync: count('sync') };
  }

  /** The power fails; what the disk then holds is in the image whose path is returned. */
  async cut(seed: number): Promise<string> {
    const image = await imagePath('cut');
    await run(script, ['cut', this.#folder, image, String(seed)]);
    return image;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.heal();
    await run('umount', [this.path]).catch(() => run('umount', ['-l', this.path]));
    for (const device of this.#devices) await run('losetup', ['-d', device]);
    await run(script, ['down', this.#folder]);
    await rm(this.#folder, { recursive: true, force: true, maxRetries: 3 });
  }
}
