import { ERRNO, isErrno } from '../../platform/linux/errno.ts';
import { close, openBeneath, Stat } from '../../platform/linux/files.ts';
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

const MOVED = [ERRNO.ENOENT, ERRNO.ENOTDIR, ERRNO.ELOOP, ERRNO.EXDEV, ERRNO.ENAMETOOLONG];

/** Where a file is. */
export interface Place {
  readonly directory: string;
  readonly name: Name;
}

/**
 * Counts what is written into a directory that was empty: distinct inodes, and what they have allocated once they are on
 * the disk, as a walk would find it. Each directory is looked at in the end; files too, after the sync, but for small ones,
 * which are when they are finished, as long as their size does not tell. Given up where anything makes it uncertain:
 * then somebody has to walk.
 */
export class Account {
  readonly #blockBytes: number;
  readonly #sureBytes: number;
  /** The smallest file seen that has whole blocks: where contents may lie in inodes, all that are larger have them too. */
  #wholeBlocksFrom = Infinity;
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
    this.#blockBytes = Math.min(blockSize, BLOCK_BYTES_MAX);
    this.#sureBytes = SURE_BLOCKS * this.#blockBytes;
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

  /**
   * It is open, and whole with its attributes.
   * @param isPlain it has neither holes nor attributes, nor had any: its size tells what it has allocated
   */
  file(fd: number, size: number, place: Place, isPlain: boolean): void {
    if (this.#isGivenUp) return;
    if (size > this.#sureBytes) {
      if (this.#hasRoom()) this.#later.push(place);
    } else if (isPlain && size >= this.#wholeBlocksFrom) {
      this.#inodes++;
      this.#units += this.#wholeBlocks(size);
    } else {
      this.#add(this.#stat.readOpen(fd));
      const isWhole = size > 0 && this.#stat.blocks === this.#wholeBlocks(size);
      if (isPlain && isWhole) this.#wholeBlocksFrom = size;
    }
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
   * @param root the directory that all paths begin at, open
   * @returns undefined where it was given up
   */
  settle(root: number): Usage | undefined {
    using here = new OpenPath(root);
    try {
      for (const path of this.#directories) this.#add(this.#stat.readOpen(here.open(path)));
      for (const { directory, name } of this.#later) {
        this.#add(this.#stat.readAt(here.open(directory), bytesOfName(name)));
      }
    } catch (error) {
      // Somebody else is at work there, or a path is longer than the kernel takes in one piece.
      if (!isErrno(error, ...MOVED)) throw error;
      this.giveUp();
    }
    if (this.#isGivenUp) return undefined;
    return { inodes: this.#inodes, size: this.#units * UNIT_BYTES };
  }

  /** Of a file of that size, in units. */
  #wholeBlocks(size: number): number {
    return (Math.ceil(size / this.#blockBytes) * this.#blockBytes) / UNIT_BYTES;
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

/** The directory that was asked for last: what is asked for next is often the same. */
class OpenPath implements Disposable {
  readonly #root: number;
  #path: string | undefined;
  #fd = -1;

  constructor(root: number) {
    this.#root = root;
  }

  /** Never one outside of the root, whoever changes it meanwhile. Ends with the next call. */
  open(path: string): number {
    if (path === this.#path) return this.#fd;
    this[Symbol.dispose]();
    this.#fd = openBeneath(this.#root, bytesOfName(path === '' ? '.' : path));
    this.#path = path;
    return this.#fd;
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
    this.#path = undefined;
  }
}
