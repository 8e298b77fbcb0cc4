import type { Cancellation } from '../../platform/jobs/cancellation.ts';
import { EntryCopier } from '../../platform/jobs/copy-entry.ts';
import { attributesOf, copyXattrs, setOpen } from '../../platform/linux/attributes.ts';
import { ERRNO, isErrno, SystemError } from '../../platform/linux/errno.ts';
import type { Bytes } from '../../platform/linux/ffi.ts';
import { mknodat, TYPE } from '../../platform/linux/files.ts';
import { getxattr, setxattr } from '../../platform/linux/xattr.ts';
import { bytesOfName, type Name } from './names.ts';
import { namesOf, NEW_MODE, pathOf, Tree, type Directory, type Found } from './tree.ts';

const OPAQUE = Buffer.from('y');

export interface OverlayDirectories {
  readonly upper: number;
  /** The nearest first. */
  readonly lowers: readonly number[];
  /** Where overlay keeps its marks: "trusted.", or "user." in a user namespace. */
  readonly xattrPrefix: string;
}

/**
 * The merged view of an overlay mount, without the mount: lower layers are looked at, the upper directory is
 * written. Its marks are overlayfs's: a device 0:0 hides a name, an attribute hides all that a lower
 * directory has. Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"
 */
export class OverlayTree extends Tree {
  readonly #opaqueName: Bytes;
  readonly #entries: EntryCopier;
  /** Paths of files that are copies of lower ones, for links that the layer makes. */
  readonly #copied = new Set<string>();
  /** Paths of directories in the upper one only because something below them changed. */
  readonly #implicit = new Set<string>();
  /** Times of those of them in which no name changed, only something further below. */
  readonly #untouched = new Map<string, Bytes>();

  /** Owns the directories from here on. */
  constructor({ upper, lowers, xattrPrefix }: OverlayDirectories, cancellation: Cancellation) {
    const ownXattrs = `${xattrPrefix}overlay.`;
    super({ root: upper, lowers, ownXattrs }, cancellation);
    this.#opaqueName = Buffer.from(`${ownXattrs}opaque\0`);
    this.#entries = new EntryCopier(cancellation, (name) => !name.startsWith(ownXattrs));
  }

  lookup(directory: Directory, name: Name): Found | undefined {
    const known = directory.children.get(name);
    if (known !== undefined) return { kind: 'directory', directory: known };
    if (directory.fd !== undefined) {
      const upper = this.#lookupUpper(directory, name, directory.fd);
      if (upper !== 'absent') return upper;
    }
    return this.#lookupLower(directory, name);
  }

  /** Makes the directory in the upper one like the lower one, once. */
  writable(directory: Directory): number {
    if (directory.fd !== undefined) return directory.fd;
    const { parent, name, path } = directory;
    const [lower] = directory.lowers;
    if (parent === undefined || lower === undefined) throw new Error('a directory of no layer');
    const above = this.writable(parent);
    this.mkdir(parent, name, 0o700);
    const fd = this.openIn(above, name);
    setOpen(fd, attributesOf(this.stat.readOpen(lower)), () =>
      copyXattrs(lower, fd, (xattr) => !xattr.startsWith(this.ownXattrs)),
    );
    directory.fd = fd;
    this.#implicit.add(path);
    this.#untouched.set(path, this.stat.times);
    return fd;
  }

  makeDirectory(parent: Directory, name: Name): { directory: Directory; existed: boolean } {
    const above = this.writable(parent);
    try {
      this.mkdir(parent, name, NEW_MODE);
    } catch (error) {
      if (!isErrno(error, ERRNO.EEXIST)) throw error;
      const found = this.#lookupUpper(parent, name, above);
      if (found !== 'absent' && found?.kind === 'directory') {
        this.#implicit.delete(found.directory.path);
        return { directory: found.directory, existed: true };
      }
      this.remove(parent, name);
      this.mkdir(parent, name, NEW_MODE);
      const directory = this.#addNew(parent, name);
      // What stood before a lower directory hid it.
      if (parent.lowers.length > 0) this.#setOpaque(directory);
      return { directory, existed: false };
    }
    const known = parent.children.get(name);
    const lowers = known?.lowers ?? this.#lowersOf(parent, name);
    if (lowers.length === 0) {
      return { directory: this.#addNew(parent, name), existed: false };
    }
    const fd = this.openIn(above, name);
    if (known === undefined) {
      return { directory: this.add(parent, name, { fd, lowers, fresh: false }), existed: true };
    }
    known.fd = fd;
    return { directory: known, existed: true };
  }

  /** It may stand before a directory or a link of a lower layer, that was gone through before. */
  added(parent: Directory, name: Name): void {
    if (parent.lowers.length > 0) this.forget(parent, name);
    this.#untouched.delete(parent.path);
    this.#copied.delete(pathOf(parent, name));
  }

  whiteout(parent: Directory, name: Name): void {
    const above = parent.fd;
    if (above !== undefined) {
      if (this.#prune(parent, name, above)) return;
      if (this.#lookupUpper(parent, name, above) !== 'absent') return;
    }
    if (this.#lookupLower(parent, name) === undefined) return;
    this.forget(parent, name);
    const [fd, bytes] = [this.writable(parent), bytesOfName(name)];
    mknodat(fd, bytes, TYPE.characterDevice, 0);
    this.account.other(fd, bytes);
    this.#untouched.delete(parent.path);
  }

  makeOpaque(directory: Directory): void {
    if (directory.parent === undefined) {
      // On the top of an upper directory the mark has no effect.
      for (const name of this.namesIn(directory)) this.whiteout(directory, name);
      return;
    }
    if (directory.lowers.length > 0) this.#setOpaque(directory);
    if (directory.fd !== undefined) this.#pruneAll(directory, directory.fd);
  }

  /** A lower file is copied to the upper directory first. */
  linkable(directory: Directory, name: Name): number | undefined {
    const bytes = bytesOfName(name);
    if (directory.fd !== undefined) {
      const upper = this.#lookupUpper(directory, name, directory.fd);
      if (upper === undefined) return undefined;
      if (upper !== 'absent') return upper.kind === 'directory' ? undefined : directory.fd;
    }
    for (const lower of directory.lowers) {
      const mode = this.modeAt(lower, bytes);
      if (mode === undefined) continue;
      if ((mode & TYPE.mask) === TYPE.directory || this.#isWhiteout()) return undefined;
      const fd = this.writable(directory);
      this.#entries.copy(lower, fd, bytes, this.stat.readAt(lower, bytes));
      this.#copied.add(pathOf(directory, name));
      this.account.giveUp();
      return fd;
    }
    return undefined;
  }

  untouchedTimes(): Iterable<readonly [string, Bytes]> {
    return this.#untouched;
  }

  /**
   * Takes out of the upper directory what is there for lower layers' sake only, and hides those below what
   * is the layer's. @returns whether something of the layer stays
   */
  #prune(parent: Directory, name: Name, above: number): boolean {
    const upper = this.#lookupUpper(parent, name, above);
    if (upper === 'absent' || upper === undefined) return false;
    const path = pathOf(parent, name);
    if (upper.kind !== 'directory') {
      if (!this.#copied.delete(path)) return true;
      this.remove(parent, name);
      return false;
    }
    const { directory } = upper;
    const hasOwn = this.#pruneAll(directory, this.writable(directory));
    const isImplicit = this.#implicit.delete(path);
    if (isImplicit) this.#untouched.delete(path);
    if (isImplicit && !hasOwn) {
      this.remove(parent, name);
      return false;
    }
    if (directory.lowers.length > 0) this.#setOpaque(directory);
    if (isImplicit) this.reset(directory);
    return true;
  }

  /** The same for all that a directory has in the upper one. */
  #pruneAll(directory: Directory, fd: number): boolean {
    const names = namesOf(fd);
    return names.filter((name) => this.#prune(directory, name, fd)).length > 0;
  }

  #setOpaque(directory: Directory): void {
    const errno = setxattr(this.writable(directory), this.#opaqueName, OPAQUE);
    if (errno !== 0) throw new SystemError(errno, 'setxattr');
    for (const child of directory.children.keys()) {
      if (directory.children.get(child)?.fd === undefined) this.forget(directory, child);
    }
    for (const lower of directory.lowers) this.close(lower);
    directory.lowers = [];
    for (const child of directory.children.values()) this.#forgetLowers(child);
  }

  #lookupUpper(parent: Directory, name: Name, above: number): Found | undefined | 'absent' {
    const known = parent.children.get(name);
    if (known?.fd !== undefined) return { kind: 'directory', directory: known };
    const bytes = bytesOfName(name);
    const mode = this.modeAt(above, bytes);
    if (mode === undefined) return 'absent';
    if ((mode & TYPE.mask) !== TYPE.directory) return this.#visible(above, bytes, mode);
    const fd = this.openIn(above, name);
    const lowers = this.#isOpaque(fd) ? [] : this.#lowersOf(parent, name);
    return { kind: 'directory', directory: this.add(parent, name, { fd, lowers, fresh: false }) };
  }

  #lookupLower(parent: Directory, name: Name): Found | undefined {
    const lowers = this.#lowersOf(parent, name);
    if (lowers.length > 0) {
      const directory = this.add(parent, name, { fd: undefined, lowers, fresh: false });
      return { kind: 'directory', directory };
    }
    const bytes = bytesOfName(name);
    for (const lower of parent.lowers) {
      const mode = this.modeAt(lower, bytes);
      if (mode !== undefined) return this.#visible(lower, bytes, mode);
    }
    return undefined;
  }

  /** The lower directories that a name stands for; none where the nearest that knows it has something else. */
  #lowersOf(parent: Directory, name: Name): readonly number[] {
    const found: number[] = [];
    const bytes = bytesOfName(name);
    for (const lower of parent.lowers) {
      const mode = this.modeAt(lower, bytes);
      if (mode === undefined) continue;
      if ((mode & TYPE.mask) !== TYPE.directory) break;
      const fd = this.openIn(lower, name);
      found.push(fd);
      if (this.#isOpaque(fd)) break;
    }
    return found;
  }

  /** `stat` is about it. */
  #visible(dirfd: number, name: Bytes, mode: number): Found | undefined {
    return this.#isWhiteout() ? undefined : this.described(dirfd, name, mode);
  }

  #isWhiteout(): boolean {
    const { mode, device } = this.stat;
    return (mode & TYPE.mask) === TYPE.characterDevice && device === 0;
  }

  #isOpaque(fd: number): boolean {
    return getxattr(fd, this.#opaqueName)?.[0] === OPAQUE[0];
  }

  #addNew(parent: Directory, name: Name): Directory {
    const fd = this.openNew(parent, name);
    this.added(parent, name);
    const directory = this.add(parent, name, { fd, lowers: [], fresh: true });
    this.#implicit.delete(directory.path);
    return directory;
  }

  #forgetLowers(directory: Directory): void {
    for (const child of directory.children.keys()) this.forget(directory, child);
    for (const lower of directory.lowers) this.close(lower);
    directory.lowers = [];
  }
}
