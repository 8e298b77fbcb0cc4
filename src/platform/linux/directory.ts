import { OpError } from '../../base/errors.ts';
import { SystemError } from './errno.ts';
import { libc, type Bytes } from './ffi.ts';
import { close, openat, openChildDirectory, O, Stat, cstring } from './files.ts';

/** d_type of readdir(3). */
export const DT = { unknown: 0, directory: 4, file: 8 } as const;

const ENTRIES_BYTES = 64 * 1024;
const DOT = 0x2e;
const PARENT = cstring('..');

let entries: Buffer | undefined;

/**
 * Reads a directory from where its descriptor stands. `visit` gets each name NUL-terminated, in memory
 * that the next name reuses, and must not read another directory meanwhile. A false stops.
 */
export function readDirectory(
  fd: number,
  visit: (name: Bytes, type: number, inode: number) => boolean,
): boolean {
  entries ??= Buffer.alloc(ENTRIES_BYTES);
  const data = entries;
  for (;;) {
    const length = libc().getdents64(fd, data, ENTRIES_BYTES);
    if (length < 0) throw new SystemError(libc().errno(), 'getdents64');
    if (length === 0) return true;
    // struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name
    for (let at = 0; at < length; at += data.readUInt16LE(at + 16)) {
      const start = at + 19;
      const end = data.indexOf(0, start);
      if (isDots(data, start, end)) continue;
      const inode = data.readUInt32LE(at) + data.readUInt32LE(at + 4) * 2 ** 32;
      if (!visit(data.subarray(start, end + 1), data.readUInt8(at + 18), inode)) return false;
    }
  }
}

const isDots = (data: Buffer, start: number, end: number): boolean =>
  data[start] === DOT && (end === start + 1 || (end === start + 2 && data[start + 1] === DOT));

interface Link {
  fd: number;
  /** Known once the descriptor was given up for a while. */
  identity: string;
}

/**
 * The open directories from a root down to the one being walked. A tree may be deeper than descriptors
 * are plenty: far ancestors are closed on the way down and found again through `..` on the way up.
 */
export class DirectoryChain implements Disposable {
  static readonly #OPEN_MAX = 64;
  readonly #links: Link[];
  readonly #stat = new Stat();

  /** Owns `root` from here on. */
  constructor(root: number) {
    this.#links = [{ fd: root, identity: '' }];
  }

  /** Of the directory being walked. */
  get fd(): number {
    return this.#last().fd;
  }

  get root(): number {
    return this.#links[0]?.fd ?? -1;
  }

  /** @throws SystemError EXDEV where another file system is mounted; ENOTDIR; ENOENT */
  enter(name: Bytes): void {
    const fd = openChildDirectory(this.fd, name);
    this.#links.push({ fd, identity: '' });
    const far = this.#links.length - 1 - DirectoryChain.#OPEN_MAX;
    const link = far > 0 ? this.#links[far] : undefined;
    if (link === undefined) return;
    link.identity = this.#stat.readOpen(link.fd).identity;
    close(link.fd);
    link.fd = -1;
  }

  leave(): void {
    const child = this.#last();
    const parent = this.#links.at(-2);
    if (parent?.fd === -1) {
      parent.fd = openat(child.fd, PARENT, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
      if (this.#stat.readOpen(parent.fd).identity !== parent.identity) {
        throw new OpError('Aborted', 'a directory was moved while its tree was walked; try again');
      }
    }
    close(child.fd);
    this.#links.pop();
  }

  [Symbol.dispose](): void {
    for (const link of this.#links.splice(0)) if (link.fd !== -1) close(link.fd);
  }

  #last(): Link {
    const link = this.#links.at(-1);
    if (link === undefined) throw new Error('directory chain used after its end');
    return link;
  }
}
