import { dirname, basename, join } from 'node:path';
import { OpError, quote } from '../../base/errors.ts';
import { DirectoryChain, DT, readDirectory } from '../linux/directory.ts';
import { ERRNO, fromSystemError, isErrno, SystemError } from '../linux/errno.ts';
import type { Bytes } from '../linux/ffi.ts';
import { chmodat, cstring, fchmod, O, open, rmdirat, seek, unlinkat } from '../linux/files.ts';
import type { Cancellation } from './cancellation.ts';

/**
 * How often a directory that is not empty after all is read again: someone writes into it, such as a layer that was
 * given up a moment ago. Each time a file has to come between our last look and the rmdir.
 */
const ATTEMPTS_MAX = 30;

/**
 * Removes `path` and all below it. Links are removed, not followed; what is mounted inside stays, with
 * the directories above it. Nothing there is fine.
 * @throws OpError FailedPrecondition naming a mount inside; Canceled, with part of the tree gone
 */
export function removeTree(path: string, cancellation: Cancellation): void {
  const removal = new Removal(path, cancellation);
  try {
    const parent = openIfPresent(dirname(path));
    if (parent !== undefined) removal.run(parent, cstring(basename(path)));
  } catch (error) {
    throw fromSystemError(error, `removing ${quote(removal.place)}`);
  }
}

/** The same in an open directory, which it closes. `path` is for messages. */
export function removeTreeAt(
  parent: number,
  name: Bytes,
  path: string,
  cancellation: Cancellation,
): void {
  const removal = new Removal(path, cancellation);
  try {
    removal.run(parent, name);
  } catch (error) {
    throw fromSystemError(error, `removing ${quote(removal.place)}`);
  }
}

interface Level {
  readonly name: Bytes;
  /** Names of directories still to be removed. */
  readonly directories: Bytes[];
  attempts: number;
  /** Something inside has to stay. */
  stays: boolean;
}

class Removal {
  readonly #path: string;
  readonly #cancellation: Cancellation;
  readonly #levels: Level[] = [];
  #mount: string | undefined;

  constructor(path: string, cancellation: Cancellation) {
    this.#path = path;
    this.#cancellation = cancellation;
  }

  /** Where the work is, for messages. */
  get place(): string {
    const names = this.#levels.slice(1).map((level) => printable(level.name));
    return names.length > 50 ? `${this.#path}/…` : join(this.#path, ...names);
  }

  run(parent: number, name: Bytes): void {
    using chain = new DirectoryChain(parent);
    if (!this.#unlink(chain.fd, name)) return;
    if (!this.#enter(chain, name)) return this.#reportMount();
    while (this.#levels.length > 0) this.#step(chain);
    this.#reportMount();
  }

  /** Enters the next directory inside, or removes this one. */
  #step(chain: DirectoryChain): void {
    const level = this.#levels.at(-1);
    if (level === undefined) return;
    const next = level.directories.pop();
    if (next !== undefined) {
      if (!this.#enter(chain, next)) level.stays = true;
      return;
    }
    chain.leave();
    const errno = level.stays ? 0 : rmdirat(chain.fd, level.name);
    if (errno === 0 || errno === ERRNO.ENOENT) {
      this.#levels.pop();
      const above = this.#levels.at(-1);
      if (level.stays && above !== undefined) above.stays = true;
      return;
    }
    if (errno !== ERRNO.ENOTEMPTY || ++level.attempts >= ATTEMPTS_MAX) {
      throw new SystemError(errno, 'rmdir');
    }
    try {
      chain.enter(level.name);
    } catch (error) {
      // Somebody else removes it, too, and was faster.
      if (!isErrno(error, ERRNO.ENOENT)) throw error;
      this.#levels.pop();
      return;
    }
    this.#empty(chain, level);
  }

  /** @returns false for a mount, which stays */
  #enter(chain: DirectoryChain, name: Bytes): boolean {
    const level: Level = { name, directories: [], attempts: 0, stays: false };
    this.#levels.push(level);
    try {
      enterForced(chain, name);
    } catch (error) {
      if (isErrno(error, ERRNO.EXDEV)) this.#mount ??= this.place;
      else if (!isErrno(error, ERRNO.ENOENT)) throw error;
      this.#levels.pop();
      return !isErrno(error, ERRNO.EXDEV);
    }
    this.#empty(chain, level);
    return true;
  }

  /** Unlinks what is no directory and notes the directories. */
  #empty(chain: DirectoryChain, level: Level): void {
    seek(chain.fd, 0);
    try {
      readDirectory(chain.fd, (name, type) => {
        this.#cancellation.check();
        if (type === DT.directory || this.#unlink(chain.fd, name)) {
          level.directories.push(Buffer.from(name));
        }
        return true;
      });
    } catch (error) {
      // Somebody else has removed it meanwhile: the kernel reads no directory without a name.
      if (!isErrno(error, ERRNO.ENOENT)) throw error;
    }
  }

  /** @returns true when it is a directory */
  #unlink(dirfd: number, name: Bytes): boolean {
    let errno = unlinkat(dirfd, name);
    if (errno === ERRNO.EACCES && this.#levels.length > 0) {
      fchmod(dirfd, 0o700);
      errno = unlinkat(dirfd, name);
    }
    if (errno === 0 || errno === ERRNO.ENOENT) return false;
    if (errno === ERRNO.EISDIR) return true;
    if (errno === ERRNO.EBUSY) {
      this.#mount ??= join(this.place, printable(name));
      const level = this.#levels.at(-1);
      if (level !== undefined) level.stays = true;
      return false;
    }
    throw new SystemError(errno, 'unlink');
  }

  #reportMount(): void {
    if (this.#mount === undefined) return;
    throw new OpError(
      'FailedPrecondition',
      `removing ${quote(this.#path)}: ${quote(this.#mount)} is a mount point; unmount it first`,
    );
  }
}

const printable = (name: Bytes): string => Buffer.from(name).toString('utf8', 0, name.length - 1);

function openIfPresent(directory: string): number | undefined {
  try {
    return open(directory, O.RDONLY | O.DIRECTORY);
  } catch (error) {
    if (isErrno(error, ERRNO.ENOENT)) return undefined;
    throw error;
  }
}

/** A directory whose mode shuts out even its owner is opened up: this process may not be root. */
function enterForced(chain: DirectoryChain, name: Bytes): void {
  try {
    chain.enter(name);
  } catch (error) {
    if (!isErrno(error, ERRNO.EACCES)) throw error;
    chmodat(chain.fd, name, 0o700);
    chain.enter(name);
  }
}
