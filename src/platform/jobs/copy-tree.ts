import { join } from 'node:path';
import { OpError, quote } from '../../base/errors.ts';
import { attributesOf, copyXattrs, setAt, setOpen, type Attributes } from '../linux/attributes.ts';
import { DirectoryChain, readDirectory } from '../linux/directory.ts';
import { ERRNO, fromSystemError, isErrno } from '../linux/errno.ts';
import type { Bytes } from '../linux/ffi.ts';
import {
  close,
  cstring,
  linkat,
  mkdirat,
  O,
  openat,
  openDirectory,
  Stat,
  TYPE,
} from '../linux/files.ts';
import type { Cancellation } from './cancellation.ts';
import { EntryCopier } from './copy-entry.ts';

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

class TreeCopy {
  readonly #cancellation: Cancellation;
  readonly #entries: EntryCopier;
  readonly #stat = new Stat();
  readonly #levels: Level[] = [];
  /** Path below the root of the copy, by identity of an original with several names. */
  readonly #linked = new Map<string, Bytes>();
  #current = '';

  constructor(cancellation: Cancellation) {
    this.#cancellation = cancellation;
    this.#entries = new EntryCopier(cancellation);
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
      setOpen(target.fd, level.attributes, () => copyXattrs(source.fd, target.fd));
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
      setAt(target.fd, name, attributesOf(this.#stat));
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
    this.#entries.copy(source.fd, target.fd, name, this.#stat);
  }

  /** Below the root of the copy. */
  #pathOf(name: Bytes): Bytes {
    const parts: Bytes[] = [];
    for (const level of this.#levels.slice(1)) parts.push(withSlash(level.name));
    return Buffer.concat([...parts, name]);
  }
}

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
