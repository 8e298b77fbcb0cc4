import { ERRNO, SystemError } from '../linux/errno.ts';
import {
  copyFileRange,
  ficlone,
  ftruncate,
  read,
  seek,
  seekData,
  seekHole,
  write,
} from '../linux/files.ts';
import type { Cancellation } from './cancellation.ts';

/** How much one call copies, and so how long a cancellation waits. */
const RANGE_BYTES = 16 * 1024 * 1024;
const BUFFER_BYTES = 256 * 1024;

/** What a file system that cannot do it says, or a pair of them. copy_file_range(2), ioctl_ficlone(2) */
const UNABLE: readonly number[] = [
  ERRNO.EOPNOTSUPP,
  ERRNO.EXDEV,
  ERRNO.EINVAL,
  ERRNO.ENOTTY,
  ERRNO.ENOSYS,
  ERRNO.EPERM,
];

/** Copies the bytes of files the cheapest way that works, and remembers which do not. */
export class DataCopier {
  readonly #cancellation: Cancellation;
  #canReflink = true;
  #canCopyRange = true;
  #buffer: Buffer | undefined;

  constructor(cancellation: Cancellation) {
    this.#cancellation = cancellation;
  }

  /** From one open file into another, new one. Holes stay holes. */
  copy(from: number, to: number, size: number): void {
    if (size === 0 || this.#reflink(from, to)) return;
    let end = 0;
    for (;;) {
      const start = seekData(from, end);
      if (start === undefined || start >= size) break;
      end = seekHole(from, start);
      seek(from, start);
      seek(to, start);
      this.#copyRange(from, to, end - start);
    }
    if (end < size) ftruncate(to, size);
  }

  #reflink(from: number, to: number): boolean {
    if (!this.#canReflink) return false;
    const errno = ficlone(to, from);
    if (errno === 0) return true;
    if (!UNABLE.includes(errno)) throw new SystemError(errno, 'FICLONE');
    // EINVAL is about this file alone, the rest about the file system.
    if (errno !== ERRNO.EINVAL) this.#canReflink = false;
    return false;
  }

  #copyRange(from: number, to: number, length: number): void {
    let rest = length;
    while (rest > 0) {
      this.#cancellation.check();
      const copied = this.#canCopyRange
        ? copyFileRange(from, to, Math.min(rest, RANGE_BYTES))
        : this.#copyThroughMemory(from, to, rest);
      // The file became shorter while it was copied.
      if (copied === 0) return;
      if (copied > 0) rest -= copied;
      else if (UNABLE.includes(-copied)) this.#canCopyRange = false;
      else throw new SystemError(-copied, 'copy_file_range');
    }
  }

  #copyThroughMemory(from: number, to: number, length: number): number {
    this.#buffer ??= Buffer.allocUnsafe(BUFFER_BYTES);
    const got = read(from, this.#buffer.subarray(0, Math.min(length, BUFFER_BYTES)));
    write(to, this.#buffer.subarray(0, got));
    return got;
  }
}
