import { open, statfs, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { messageOf, OpError } from '../base/errors.ts';
import { syncfsAsync } from '../platform/linux/files.ts';
import { isFull } from './disk-full.ts';

/** Removals and level's own compaction live on this when the disk is full. */
const RESERVE_BYTES = 8 << 20;
/** The reserve is only taken again when others keep this much beside it. */
const ROOM_BYTES = 2 * RESERVE_BYTES;

/** A preallocated file that is given up when the disk is full. */
export class Reserve {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async giveUp(): Promise<void> {
    await unlink(this.#path).catch(() => undefined);
  }

  /**
   * Whether it can be taken without leaving the next writer on a full disk again.
   * @throws SystemError the disk is broken
   */
  async hasRoom(): Promise<boolean> {
    const folder = dirname(this.#path);
    if (await isRoom(folder)) return true;
    // btrfs counts what was freed only after its next commit.
    await using directory = await open(folder);
    await syncfsAsync(directory.fd);
    return isRoom(folder);
  }

  /**
   * Written, not only allocated: a hole or a delayed allocation would be no reserve.
   * @returns false when the disk has no room for it
   * @throws OpError Internal the disk is broken
   */
  async take(): Promise<boolean> {
    try {
      await using file = await open(this.#path, 'r+').catch(() => open(this.#path, 'w', 0o600));
      if ((await file.stat()).blocks * 512 >= RESERVE_BYTES) return true;
      await file.writeFile(Buffer.alloc(RESERVE_BYTES));
      await file.sync();
      return true;
    } catch (error) {
      if (isFull(error)) {
        await this.giveUp();
        return false;
      }
      throw new OpError(
        'Internal',
        `reserve ${this.#path} cannot be written: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }
}

async function isRoom(folder: string): Promise<boolean> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize >= ROOM_BYTES;
}
