import { join } from 'node:path';
import { OpError, quote } from '../../base/errors.ts';
import { DirectoryChain, readDirectory } from '../linux/directory.ts';
import { ERRNO, fromSystemError, isErrno, SystemError } from '../linux/errno.ts';
import type { Bytes } from '../linux/ffi.ts';
import {
  chmodat,
  close,
  cstring,
  fchmod,
  fchown,
  futimens,
  lchownat,
  linkat,
  lutimensat,
  mkdirat,
  mknodat,
  O,
  openat,
  openDirectory,
  readlinkat,
  Stat,
  symlinkat,
  TYPE,
} from '../linux/files.ts';
import { getxattr, listxattr, setxattr, type XattrTarget } from '../linux/xattr.ts';
import type { Cancellation } from './cancellation.ts';
import { DataCopier } from './copy-data.ts';

const PERMISSIONS = 0o7777;
/** Longer paths are more than one call takes. PATH_MAX */
const PATH_BYTES_MAX = 4095;

/**
 * Makes the empty directory `to` equal to `from` and everything in it: bytes (shared with the original
 * where the file system can), holes, links between files inside, extended attributes, devices, pipes,
 * sockets, owners, modes and times. What is mounted inside is copied as the empty directory below the
 * mount. Attributes that the kernel does not let us set are left out.
 * @throws OpError NotFound; ResourceExhausted; Canceled; each leaves a part copied
 */
export function copyTree(from: string, to: string, cancellation: Cancellation): void {
  const copy = new TreeCopy(cancellation);
  try {
    copy.run(from, to);
  } catch (error) {
    throw fromSystemError(error, `copying ${quote(join(from, copy.place))} to ${quote(to)}`);
  }
}

interface Level {
  readonly name: Bytes;
  /** Of the directory, to be given to its copy when that is full. */
  readonly attributes: Attributes;
  readonly directories: Bytes[];
}

interface Attributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly times: Bytes;
}

class TreeCopy {
  readonly #cancellation: Cancellation;
  readonly #data: DataCopier;
  readonly #stat = new Stat();
  readonly #levels: Level[] = [];
  /** Path below the root of the copy, by identity of an original with several names. */
  readonly #linked = new Map<string, Bytes>();
  #current = '';

  constructor(cancellation: Cancellation) {
    this.#cancellation = cancellation;
    this.#data = new DataCopier(cancellation);
  }

  /** Where the work is, below the root; for messages. */
  get place(): string {
    const names = this.#levels.slice(1).map(({ name }) => printable(name));
    return names.length > 50 ? '…' : join(...names, this.#current);
  }

  run(from: string, to: string): void {
    using source = new DirectoryChain(openDirectory(from));
    using target = new DirectoryChain(openDirectory(to));
    this.#stat.readOpen(source.fd);
    this.#fill(source, target, cstring('.'));
    while (this.#levels.length > 0) this.#step(source, target);
  }

  /** Copies the next directory inside, or finishes this one. */
  #step(source: DirectoryChain, target: DirectoryChain): void {
    const level = this.#levels.at(-1);
    if (level === undefined) return;
    const name = level.directories.pop();
    if (name === undefined) {
      copyXattrs(source.fd, target.fd);
      finishOpen(target.fd, level.attributes);
      this.#levels.pop();
      if (this.#levels.length === 0) return;
      source.leave();
      target.leave();
      return;
    }
    this.#current = printable(name);
    this.#stat.readAt(source.fd, name);
    mkdirat(target.fd, name, 0o700);
    try {
      source.enter(name);
    } catch (error) {
      if (!isErrno(error, ERRNO.EXDEV)) throw error;
      finishAt(target.fd, name, attributesOf(this.#stat));
      return;
    }
    target.enter(name);
    this.#fill(source, target, name);
  }

  /** Copies all of a directory but the directories inside. `#stat` is about it. */
  #fill(source: DirectoryChain, target: DirectoryChain, name: Bytes): void {
    const level = { name, attributes: attributesOf(this.#stat), directories: [] as Bytes[] };
    this.#levels.push(level);
    const names: Bytes[] = [];
    readDirectory(source.fd, (entry) => {
      names.push(Buffer.from(entry));
      return true;
    });
    for (const entry of names) {
      this.#cancellation.check();
      this.#current = printable(entry);
      this.#stat.readAt(source.fd, entry);
      if ((this.#stat.mode & TYPE.mask) === TYPE.directory) level.directories.push(entry);
      else this.#copyEntry(source, target, entry);
    }
    this.#current = '';
  }

  #copyEntry(source: DirectoryChain, target: DirectoryChain, name: Bytes): void {
    if (this.#stat.links > 1) {
      const { identity } = this.#stat;
      const first = this.#linked.get(identity);
      if (first !== undefined) {
        link(target.root, first, target.fd, name);
        return;
      }
      this.#linked.set(identity, this.#pathOf(name));
    }
    if ((this.#stat.mode & TYPE.mask) === TYPE.file) this.#copyFile(source.fd, target.fd, name);
    else this.#copySpecial(source.fd, target.fd, name);
  }

  #copyFile(source: number, target: number, name: Bytes): void {
    const attributes = attributesOf(this.#stat);
    const { size } = this.#stat;
    const from = openUntouched(source, name);
    try {
      const to = openat(target, name, O.WRONLY | O.CREAT | O.EXCL | O.NOFOLLOW, 0o600);
      try {
        this.#data.copy(from, to, size);
        fchown(to, attributes.uid, attributes.gid);
        // After the owner, which drops capabilities; before the mode, which goes with an access list.
        copyXattrs(from, to);
        fchmod(to, attributes.mode & PERMISSIONS);
        futimens(to, attributes.times);
      } finally {
        close(to);
      }
    } finally {
      close(from);
    }
  }

  #copySpecial(source: number, target: number, name: Bytes): void {
    const attributes = attributesOf(this.#stat);
    if ((attributes.mode & TYPE.mask) === TYPE.link) {
      symlinkat(readlinkat(source, name), target, name);
    } else {
      mknodat(target, name, attributes.mode, this.#stat.device);
    }
    copyXattrs(pathThrough(source, name), pathThrough(target, name));
    finishAt(target, name, attributes);
  }

  /** Below the root of the copy. */
  #pathOf(name: Bytes): Bytes {
    const parts: Bytes[] = [];
    for (const level of this.#levels.slice(1)) parts.push(withSlash(level.name));
    return Buffer.concat([...parts, name]);
  }
}

const attributesOf = (stat: Stat): Attributes => ({
  mode: stat.mode,
  uid: stat.uid,
  gid: stat.gid,
  times: stat.times,
});

/** Times come last: everything else changes them. */
function finishOpen(fd: number, attributes: Attributes): void {
  fchown(fd, attributes.uid, attributes.gid);
  fchmod(fd, attributes.mode & PERMISSIONS);
  futimens(fd, attributes.times);
}

function finishAt(dirfd: number, name: Bytes, attributes: Attributes): void {
  lchownat(dirfd, name, attributes.uid, attributes.gid);
  const isLink = (attributes.mode & TYPE.mask) === TYPE.link;
  if (!isLink) chmodat(dirfd, name, attributes.mode & PERMISSIONS);
  lutimensat(dirfd, name, attributes.times);
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

/** Failures to set one are ignored, as containerd does, unless the disk is the reason. */
function copyXattrs(from: XattrTarget, to: XattrTarget): void {
  for (const name of listxattr(from)) {
    const value = getxattr(from, name);
    const errno = value === undefined ? 0 : setxattr(to, name, value);
    if (FATAL.includes(errno)) throw new SystemError(errno, 'setxattr');
  }
}

const FATAL: readonly number[] = [ERRNO.ENOSPC, ERRNO.EDQUOT, ERRNO.EIO, ERRNO.EROFS];

/** The calls for attributes of what cannot be opened know no directory descriptors. */
const pathThrough = (dirfd: number, name: Bytes): Bytes =>
  Buffer.concat([Buffer.from(`/proc/self/fd/${dirfd}/`), name]);

/** Links an earlier copy, however long its path is. */
function link(root: number, path: Bytes, dirfd: number, name: Bytes): void {
  if (path.length <= PATH_BYTES_MAX) {
    linkat(root, path, dirfd, name);
    return;
  }
  const slash = path.lastIndexOf(SLASH, PATH_BYTES_MAX - 1);
  if (slash <= 0) throw new OpError('Internal', 'a name longer than a path');
  const head = Buffer.concat([path.subarray(0, slash), NUL]);
  const directory = openat(root, head, O.PATH | O.DIRECTORY | O.NOFOLLOW);
  try {
    link(directory, path.subarray(slash + 1), dirfd, name);
  } finally {
    close(directory);
  }
}

const SLASH = 0x2f;
const NUL = Buffer.alloc(1);

function withSlash(name: Bytes): Bytes {
  const part = Buffer.from(name);
  part[part.length - 1] = SLASH;
  return part;
}

const printable = (name: Bytes): string => Buffer.from(name).toString('utf8', 0, name.length - 1);
