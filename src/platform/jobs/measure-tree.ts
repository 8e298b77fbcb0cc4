import { DirectoryChain, readDirectory } from '../linux/directory.ts';
import { ERRNO, fromSystemError, isErrno } from '../linux/errno.ts';
import type { Bytes } from '../linux/ffi.ts';
import { openDirectory, Stat, TYPE } from '../linux/files.ts';
import type { TreeSize } from '../platform.ts';
import { quote } from '../../base/errors.ts';
import type { Cancellation } from './cancellation.ts';

/** What one tree may cost where others wait behind it. */
export interface Budget {
  readonly entries: number;
  readonly ms: number;
}

const BLOCK_BYTES = 512;
const UNLIMITED: Budget = { entries: Infinity, ms: Infinity };

/**
 * Counts distinct inodes below and including `path`, and what they have allocated. Mounts inside are not
 * entered and not counted; what disappears meanwhile is not counted.
 * @returns undefined when it would cost more than the budget
 * @throws OpError NotFound
 */
export function measureTree(
  path: string,
  cancellation: Cancellation,
  budget: Budget = UNLIMITED,
): TreeSize | undefined {
  try {
    using chain = new DirectoryChain(openDirectory(path));
    return new Measurement(chain, cancellation, budget).run();
  } catch (error) {
    throw fromSystemError(error, `measuring ${quote(path)}`);
  }
}

class Measurement {
  readonly #chain: DirectoryChain;
  readonly #cancellation: Cancellation;
  readonly #entriesMax: number;
  readonly #deadline: number;
  readonly #stat = new Stat();
  /** Of files with several names; the rest cannot be met twice. */
  readonly #linked = new Set<string>();
  #entries = 0;
  #inodes = 1;
  #owner = { uid: 0, gid: 0 };
  #blocks = 0;

  constructor(chain: DirectoryChain, cancellation: Cancellation, budget: Budget) {
    this.#chain = chain;
    this.#cancellation = cancellation;
    this.#entriesMax = budget.entries;
    this.#deadline = performance.now() + budget.ms;
  }

  run(): TreeSize | undefined {
    const { blocks, uid, gid } = this.#stat.readOpen(this.#chain.fd);
    this.#blocks = blocks;
    this.#owner = { uid, gid };
    /** Names still to be entered, for each open directory. */
    const pending: Bytes[][] = [];
    for (;;) {
      const directories = this.#readHere();
      if (directories === undefined) return undefined;
      pending.push(directories);
      while (!this.#enterNext(pending.at(-1))) {
        pending.pop();
        if (pending.length === 0) {
          return { inodes: this.#inodes, size: this.#blocks * BLOCK_BYTES, ...this.#owner };
        }
        this.#chain.leave();
      }
    }
  }

  /** @returns names of directories inside, undefined when there is too much */
  #readHere(): Bytes[] | undefined {
    const directories: Bytes[] = [];
    const complete = readDirectory(this.#chain.fd, (name) => {
      this.#cancellation.check();
      if (++this.#entries > this.#entriesMax || performance.now() > this.#deadline) return false;
      if (this.#count(name)) directories.push(Buffer.from(name));
      return true;
    });
    return complete ? directories : undefined;
  }

  /** @returns whether it is a directory to enter */
  #count(name: Bytes): boolean {
    try {
      this.#stat.readAt(this.#chain.fd, name);
    } catch (error) {
      if (isErrno(error, ERRNO.ENOENT)) return false;
      throw error;
    }
    if (this.#stat.isMountRoot) return false;
    const isDirectory = (this.#stat.mode & TYPE.mask) === TYPE.directory;
    if (!isDirectory && this.#stat.links > 1) {
      const { identity } = this.#stat;
      if (this.#linked.has(identity)) return false;
      this.#linked.add(identity);
    }
    this.#inodes++;
    this.#blocks += this.#stat.blocks;
    return isDirectory;
  }

  #enterNext(directories: Bytes[] | undefined): boolean {
    for (;;) {
      const name = directories?.pop();
      if (name === undefined) return false;
      try {
        this.#chain.enter(name);
        return true;
      } catch (error) {
        if (!isErrno(error, ERRNO.ENOENT, ERRNO.ENOTDIR, ERRNO.ELOOP, ERRNO.EXDEV)) throw error;
      }
    }
  }
}
