import { quote } from '../../../base/errors.ts';
import { getSubvolInfo, SUBVOLUME_ROOT, sync } from '../../linux/btrfs.ts';
import { DirectoryChain, readDirectory } from '../../linux/directory.ts';
import { ERRNO, fromSyncError, fromSystemError, isErrno } from '../../linux/errno.ts';
import type { Bytes } from '../../linux/ffi.ts';
import { close, openDirectory, Stat, syncfs, TYPE } from '../../linux/files.ts';
import type { MeasuredSubvolume, SubvolumeSize } from '../../platform.ts';
import { cancellationOf, type CancelFlag, type Cancellation } from '../cancellation.ts';
import type { Budget } from '../measure-tree.ts';
import { changedInodes, type ChangedInodes } from './changed-inodes.ts';
import { quotaGroupOf } from './quotas.ts';
import { isSameFile } from './same-file.ts';

const BLOCK_BYTES = 512;
const UNLIMITED: Budget = { entries: Infinity, ms: Infinity };
/** A directory of the inode number of its own subvolume's place, in a snapshot of what held it. */
const EMPTY_SUBVOLUME = 2;

/**
 * Counts distinct inodes of a subvolume, and what they have allocated. With a base, the read-only
 * subvolume that it was a snapshot of, only entries that are not the same there: a fresh snapshot has
 * none. Subvolumes inside count as empty directories, which is what a snapshot makes of them.
 * @returns undefined when it would cost more than the budget
 * @throws OpError NotFound
 */
export function measureSubvolume(
  path: string,
  base: string | undefined,
  cancellation: Cancellation,
  budget: Budget = UNLIMITED,
): SubvolumeSize | undefined {
  try {
    using chain = new DirectoryChain(openDirectory(path));
    using below = base === undefined ? undefined : new DirectoryChain(openDirectory(base));
    const changes = below && changedInodes(chain.fd, below.fd, cancellation, budget.entries);
    if (below !== undefined && changes === undefined) return undefined;
    return new Measurement({ chain, base: below, changes }, cancellation, budget).run();
  } catch (error) {
    throw fromSystemError(error, `measuring ${quote(path)}`);
  }
}

export interface MeasureSubvolumeRequest {
  readonly path: string;
  readonly base: string | undefined;
  readonly cancel: CancelFlag;
}

/** The same for one that nothing is written to any more. */
export function measureSealed({ path, base, cancel }: MeasureSubvolumeRequest): SubvolumeSize {
  const size = measureSubvolume(path, base, cancellationOf(cancel, 'measuring'));
  if (size === undefined) throw new Error(`measuring ${path}: gave up without a limit`);
  return size;
}

export interface MeasureWrittenRequest extends MeasureSubvolumeRequest {
  /** The generation at which the caller knows the size. */
  readonly knownGeneration: number | undefined;
}

/**
 * The same for one that is being written to. Looks at its generation first, and walks only when that
 * has moved; then everything written so far is brought to the disk before, as a file's blocks are not
 * final until then.
 * @throws SyncFailure
 */
export function measureWritten(request: MeasureWrittenRequest): MeasuredSubvolume {
  const { path, knownGeneration } = request;
  const fd = openToMeasure(path);
  try {
    sync(fd);
    if (getSubvolInfo(fd).generation === knownGeneration) {
      return { generation: knownGeneration, size: undefined, group: quotaGroupOf(fd) };
    }
    syncfs(fd);
    const { generation } = getSubvolInfo(fd);
    const size = measureSealed(request);
    return { generation, size, group: quotaGroupOf(fd) };
  } catch (error) {
    throw fromSyncError(error, `measuring ${quote(path)}`);
  } finally {
    close(fd);
  }
}

function openToMeasure(path: string): number {
  try {
    return openDirectory(path);
  } catch (error) {
    throw fromSystemError(error, `measuring ${quote(path)}`);
  }
}

/** One directory being read. */
interface Level {
  /** Names of directories still to be entered, and whether only what changed in them is looked at. */
  readonly pending: { readonly name: Bytes; readonly pruned: boolean }[];
  readonly hasBase: boolean;
}

interface Compared {
  readonly chain: DirectoryChain;
  readonly base: DirectoryChain | undefined;
  /** With a base. */
  readonly changes: ChangedInodes | undefined;
}

class Measurement {
  readonly #chain: DirectoryChain;
  readonly #base: DirectoryChain | undefined;
  readonly #changes: ChangedInodes | undefined;
  readonly #cancellation: Cancellation;
  readonly #entriesMax: number;
  readonly #deadline: number;
  readonly #stat = new Stat();
  readonly #baseStat = new Stat();
  /** Of files with several names; the rest cannot be met twice. */
  readonly #linked = new Set<number>();
  #entries = 0;
  #inodes = 0;
  #blocks = 0;

  constructor({ chain, base, changes }: Compared, cancellation: Cancellation, budget: Budget) {
    this.#chain = chain;
    this.#base = base;
    this.#changes = changes;
    this.#cancellation = cancellation;
    this.#entriesMax = budget.entries;
    this.#deadline = performance.now() + budget.ms;
  }

  run(): SubvolumeSize | undefined {
    const hasBase = this.#base !== undefined;
    if (!hasBase) this.#add(this.#stat.readOpen(this.#chain.fd));
    const root: Level = { pending: [], hasBase };
    if (!this.#readHere(root, hasBase)) return undefined;
    const levels = [root];
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const next = level.pending.pop();
      if (next === undefined) {
        levels.pop();
        if (levels.length > 0) this.#leave(level);
        continue;
      }
      const entered = this.#enter(next.name, level.hasBase);
      if (entered === undefined) continue;
      levels.push(entered);
      const pruned = next.pruned && entered.hasBase;
      if (!this.#readHere(entered, pruned)) return undefined;
    }
    return { inodes: this.#inodes, size: this.#blocks * BLOCK_BYTES };
  }

  /** @returns false when there is too much */
  #readHere(level: Level, pruned: boolean): boolean {
    const base = level.hasBase ? this.#base?.fd : undefined;
    return readDirectory(this.#chain.fd, (name, _type, inode) => {
      this.#cancellation.check();
      if (++this.#entries > this.#entriesMax || performance.now() > this.#deadline) return false;
      if (pruned && this.#changes?.changed.has(inode) === false) {
        if (this.#changes.above.has(inode)) {
          level.pending.push({ name: Buffer.from(name), pruned });
        }
        return true;
      }
      if (this.#count(name, base)) {
        const same = pruned && base !== undefined && this.#baseStat.inode === inode;
        level.pending.push({ name: Buffer.from(name), pruned: same });
      }
      return true;
    });
  }

  /** @returns whether it is a directory to enter; then #baseStat is that of its name in the base */
  #count(name: Bytes, base: number | undefined): boolean {
    if (!this.#read(this.#stat, this.#chain.fd, name)) return false;
    const there = base !== undefined && this.#read(this.#baseStat, base, name);
    const same = there && isSameFile(this.#chain.fd, this.#stat, base, this.#baseStat, name);
    if (!same) this.#add(this.#stat);
    const { inode, mode } = this.#stat;
    const isDirectory = (mode & TYPE.mask) === TYPE.directory;
    return isDirectory && inode !== SUBVOLUME_ROOT && inode !== EMPTY_SUBVOLUME;
  }

  #add({ inode, links, mode, blocks }: Stat): void {
    const isDirectory = (mode & TYPE.mask) === TYPE.directory;
    if (!isDirectory && links > 1) {
      if (this.#linked.has(inode)) return;
      this.#linked.add(inode);
    }
    this.#inodes++;
    this.#blocks += blocks;
  }

  #enter(name: Bytes, hasBase: boolean): Level | undefined {
    if (!enter(this.#chain, name)) return undefined;
    return {
      pending: [],
      hasBase: hasBase && this.#base !== undefined && enter(this.#base, name),
    };
  }

  #leave(level: Level): void {
    this.#chain.leave();
    if (level.hasBase) this.#base?.leave();
  }

  #read(stat: Stat, dirfd: number, name: Bytes): boolean {
    try {
      stat.readAt(dirfd, name);
      return true;
    } catch (error) {
      if (isErrno(error, ERRNO.ENOENT)) return false;
      throw error;
    }
  }
}

/** @returns false for what is gone or no directory, or has something mounted on it */
function enter(chain: DirectoryChain, name: Bytes): boolean {
  try {
    chain.enter(name);
    return true;
  } catch (error) {
    if (isErrno(error, ERRNO.ENOENT, ERRNO.ENOTDIR, ERRNO.ELOOP, ERRNO.EXDEV)) return false;
    throw error;
  }
}
