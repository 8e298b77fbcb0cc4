import { Stat } from '../../platform/linux/files.ts';
import type { Bytes } from '../../platform/linux/ffi.ts';
import type { Usage } from '../../snapshotters/snapshotter.ts';
import { bytesOfName, type Name } from './names.ts';

/** Of st_blocks. */
const UNIT_BYTES = 512;

/**
 * A file of so many blocks has no more extents, for which there is room in an inode of ext4 and xfs: what is allocated is
 * known before it is written out. A larger one may need blocks that tell where its blocks are, or give back some.
 */
const SURE_BLOCKS = 4;
const BLOCK_BYTES_MAX = 4096;

/** Of directories, and of files that are looked at again: some hundred bytes each. */
const PLACES_MAX = 100_000;

/** Where a file is. */
export interface Place {
  readonly directory: string;
  readonly name: Name;
}

/**
 * Counts what is written into a directory that was empty: distinct inodes, and what they have allocated once they are on
 * the disk, as a walk would find it. Each file is looked at once: when it is finished, or where that is too early after
 * the sync; each directory in the end. Given up where anything makes it uncertain: then somebody has to walk.
 */
export class Account {
  readonly #sureBytes: number;
  readonly #stat = new Stat();
  /** Paths of those that were not counted yet. */
  readonly #directories = new Set<string>();
  readonly #later: Place[] = [];
  #isGivenUp = false;
  #inodes = 0;
  #units = 0;

  /** @param directory open */
  constructor(directory: number) {
    const { blockSize } = this.#stat.readOpen(directory);
    this.#sureBytes = SURE_BLOCKS * Math.min(blockSize, BLOCK_BYTES_MAX);
  }

  giveUp(): void {
    this.#isGivenUp = true;
    this.#directories.clear();
    this.#later.length = 0;
  }

  /** It is made, and will hold more. */
  directory(path: string): void {
    if (this.#hasRoom()) this.#directories.add(path);
  }

  /** Nothing more comes into it. */
  directoryDone(path: string, fd: number): void {
    if (this.#directories.delete(path)) this.#add(this.#stat.readOpen(fd));
  }

  /** It is open, and whole with its attributes. */
  file(fd: number, size: number, place: Place): void {
    if (this.#isGivenUp) return;
    if (size <= this.#sureBytes) this.#add(this.#stat.readOpen(fd));
    else if (this.#hasRoom()) this.#later.push(place);
  }

  /** What is neither file nor directory, with its attributes. */
  other(dirfd: number, name: Bytes): void {
    if (!this.#isGivenUp) this.#add(this.#stat.readAt(dirfd, name));
  }

  /** What somebody else counted. */
  add({ inodes, size }: Usage): void {
    this.#inodes += inodes;
    this.#units += size / UNIT_BYTES;
  }

  /**
   * Behind the sync.
   * @param open a directory by its path, until the next call
   * @returns undefined where it was given up
   */
  settle(open: (path: string) => number | undefined): Usage | undefined {
    for (const path of [...this.#directories]) {
      const fd = open(path);
      if (fd === undefined) return undefined;
      this.directoryDone(path, fd);
    }
    let here: { readonly path: string; readonly fd: number | undefined } | undefined;
    for (const { directory: path, name } of this.#later) {
      if (here?.path !== path) here = { path, fd: open(path) };
      if (here.fd === undefined || !this.#stat.findAt(here.fd, bytesOfName(name))) return undefined;
      this.#add(this.#stat);
    }
    if (this.#isGivenUp) return undefined;
    return { inodes: this.#inodes, size: this.#units * UNIT_BYTES };
  }

  #hasRoom(): boolean {
    if (this.#isGivenUp) return false;
    if (this.#directories.size + this.#later.length >= PLACES_MAX) this.giveUp();
    return !this.#isGivenUp;
  }

  #add({ blocks }: Stat): void {
    this.#inodes++;
    this.#units += blocks;
  }
}
