import { attributesOf, copyXattrs, pathThrough, setAt, setOpen } from '../linux/attributes.ts';
import { ERRNO, isErrno } from '../linux/errno.ts';
import type { Bytes } from '../linux/ffi.ts';
import {
  close,
  mknodat,
  O,
  openat,
  readlinkat,
  symlinkat,
  TYPE,
  type Stat,
} from '../linux/files.ts';
import type { Cancellation } from './cancellation.ts';
import { DataCopier } from './copy-data.ts';

/** Copies single files, links, devices, pipes and sockets between directories. */
export class EntryCopier {
  readonly #data: DataCopier;
  readonly #wantedXattr: ((name: string) => boolean) | undefined;

  constructor(cancellation: Cancellation, wantedXattr?: (name: string) => boolean) {
    this.#data = new DataCopier(cancellation);
    this.#wantedXattr = wantedXattr;
  }

  /** `stat`: of the original, which is no directory. The copy must not be there yet. */
  copy(source: number, target: number, name: Bytes, stat: Stat): void {
    if ((stat.mode & TYPE.mask) === TYPE.file) this.#copyFile(source, target, name, stat);
    else this.#copySpecial(source, target, name, stat);
  }

  #copyFile(source: number, target: number, name: Bytes, stat: Stat): void {
    const attributes = attributesOf(stat);
    const from = openUntouched(source, name);
    try {
      const to = openat(target, name, O.WRONLY | O.CREAT | O.EXCL | O.NOFOLLOW, 0o600);
      try {
        this.#data.copy(from, to, stat.size);
        setOpen(to, attributes, () => copyXattrs(from, to, this.#wantedXattr));
      } finally {
        close(to);
      }
    } finally {
      close(from);
    }
  }

  #copySpecial(source: number, target: number, name: Bytes, stat: Stat): void {
    const attributes = attributesOf(stat);
    if ((attributes.mode & TYPE.mask) === TYPE.link) {
      symlinkat(readlinkat(source, name), target, name);
    } else {
      mknodat(target, name, attributes.mode, stat.device);
    }
    copyXattrs(pathThrough(source, name), pathThrough(target, name), this.#wantedXattr);
    setAt(target, name, attributes);
  }
}

/** Reading for a copy is no access; only an owner may say so. */
function openUntouched(dirfd: number, name: Bytes): number {
  try {
    return openat(dirfd, name, O.RDONLY | O.NOFOLLOW | O.NONBLOCK | O.NOATIME);
  } catch (error) {
    if (!isErrno(error, ERRNO.EPERM)) throw error;
    return openat(dirfd, name, O.RDONLY | O.NOFOLLOW | O.NONBLOCK);
  }
}
