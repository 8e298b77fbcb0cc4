import { OpError } from '../../base/errors.ts';
import { pathThrough } from '../../platform/linux/attributes.ts';
import { ERRNO, fromSystemError, isErrno } from '../../platform/linux/errno.ts';
import {
  close,
  fchmod,
  futimens,
  lchmodat,
  lchownat,
  linkat,
  lutimensat,
  mknodat,
  O,
  openat,
  renameat,
  Stat,
  symlinkat,
  TYPE,
} from '../../platform/linux/files.ts';
import type { Bytes } from '../../platform/linux/ffi.ts';
import type { Usage } from '../../snapshotters/snapshotter.ts';
import { BodyFile } from './body-file.ts';
import {
  dropInherited,
  finishNew,
  finishOpen,
  setXattrs,
  timesOf,
  type Times,
} from './entry-attributes.ts';
import type { TarLimits } from './limits.ts';
import { bytesOfName, quoteName, type Name } from './names.ts';
import type { TarEntry } from './tar-entry.ts';
import type { TarSink } from './tar-reader.ts';
import type { Directory, Tree } from './tree.ts';

export const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';

/** A name that no layer can use. */
const ASIDE = bytesOfName(`${WHITEOUT}.ballast`);

interface Mark {
  readonly path: string;
  /** Undefined for an opaque directory. */
  readonly name: Name | undefined;
}

/** Files that are written and finished already, by the offsets of their entries: they are linked into the tree. */
interface Bodies {
  /** Open. */
  readonly directory: number;
  /** False where a layer was about to be written from them before: links may have given them other modes and owners. */
  readonly areNew: boolean;
  /** All of them; undefined where that is not known. */
  readonly usage: Usage | undefined;
}

/** Writes a layer's entries into a tree, as the OCI image specification's layer.md has it. */
export class LayerWriter implements TarSink {
  readonly #tree: Tree;
  readonly #directoriesMax: number;
  readonly #bodies: Bodies | undefined;
  /** Whiteouts hide layers below only, so they wait until all entries are there. */
  readonly #marks: Mark[] = [];
  /** By path; they come last, as what is put into a directory changes them. */
  readonly #directoryTimes = new Map<string, Times>();
  readonly #stat = new Stat();
  readonly #body: BodyFile;
  #rootEntry: TarEntry | undefined;
  #entry: TarEntry | undefined;

  /** @param bodies of files whose bodies do not come */
  constructor(tree: Tree, limits: Pick<TarLimits, 'directoriesMax'>, bodies?: Bodies) {
    this.#tree = tree;
    this.#directoriesMax = limits.directoriesMax;
    this.#bodies = bodies;
    this.#body = new BodyFile(tree.account);
  }

  /** @throws OpError InvalidArgument naming the entry and what is wrong with it */
  begin(entry: TarEntry): void {
    this.#guard(entry, () => this.#begin(entry));
  }

  body(bytes: Uint8Array, position: number): void {
    this.#guard(this.#entry, () => this.#body.write(bytes, position));
  }

  end(): void {
    this.#guard(this.#entry, () => this.#body.finish());
  }

  /** After the last entry: whiteouts, and the times of directories. */
  finish(): void {
    for (const { path, name } of this.#marks) this.#settle(path, name);
    const root = this.#rootEntry;
    if (root !== undefined) {
      this.#guard(root, () => finishOpen(this.#tree.writable(this.#tree.root), root));
    }
    for (const [path, times] of this.#tree.untouchedTimes()) this.#setTimes(path, times);
    for (const [path, times] of this.#directoryTimes) this.#setTimes(path, timesOf(times));
    if (this.#bodies === undefined) return;
    // Each was linked, and nothing else counted it.
    if (this.#bodies.usage === undefined) this.#tree.account.giveUp();
    else this.#tree.account.add(this.#bodies.usage);
  }

  /** Where it is, for messages. */
  get place(): string {
    return placeBehind(this.#entry);
  }

  /** Closes what an entry that was given up left open. */
  [Symbol.dispose](): void {
    this.#body[Symbol.dispose]();
  }

  #guard(entry: TarEntry | undefined, step: () => void): void {
    try {
      step();
    } catch (error) {
      throw describeAt(entry, error);
    }
  }

  #begin(entry: TarEntry): void {
    this.#tree.rest();
    this.#entry = entry;
    if (this.#directoryTimes.size + this.#marks.length >= this.#directoriesMax) {
      throw invalid(`more than ${this.#directoriesMax} directories and whiteouts`);
    }
    const [above, name] = placeOf(entry);
    if (name.startsWith(WHITEOUT)) return this.#mark(above, name);
    if (name === '') {
      this.#rootEntry = entry;
      this.#directoryTimes.delete('');
      return;
    }
    this.#make(entry, this.#tree.directory(above), name);
  }

  #mark(path: string, name: Name): void {
    if (name === OPAQUE) {
      this.#marks.push({ path, name: undefined });
      return;
    }
    const hidden = hiddenBy(name);
    // aufs kept its own things under such names.
    if (!hidden.startsWith(WHITEOUT)) this.#marks.push({ path, name: hidden });
  }

  #settle(path: string, name: Name | undefined): void {
    this.#tree.rest();
    try {
      const directory = this.#tree.directory(path);
      if (name === undefined) this.#tree.makeOpaque(directory);
      else this.#tree.whiteout(directory, name);
    } catch (error) {
      throw describe(error, `layer, whiteout in ${quoteName(path)}`);
    }
  }

  #setTimes(path: string, times: Bytes): void {
    this.#tree.rest();
    const directory = this.#tree.at(path);
    if (directory === undefined) return;
    const fd = this.#tree.writable(directory);
    futimens(fd, times);
    this.#tree.account.directoryDone(directory.path, fd);
  }

  #make(entry: TarEntry, parent: Directory, name: Name): void {
    const fd = this.#tree.writable(parent);
    const bytes = bytesOfName(name);
    switch (entry.type) {
      case 'directory':
        return this.#makeDirectory(entry, parent, name);
      case 'file':
        if (this.#bodies !== undefined) return this.#linkBody(this.#bodies, entry, parent, name);
        return this.#makeFile(entry, parent, name);
      case 'hardlink':
        return this.#link(entry, parent, name);
      case 'symlink':
        this.#place(parent, name, () => symlinkat(target(entry), fd, bytes));
        break;
      case 'fifo':
        this.#place(parent, name, () => mknodat(fd, bytes, TYPE.fifo, 0));
        break;
      case 'block-device':
        this.#place(parent, name, () => mknodat(fd, bytes, TYPE.blockDevice, deviceOf(entry)));
        break;
      case 'character-device':
        // To overlayfs that is a whiteout, wherever it comes from.
        if (deviceOf(entry) === 0) return;
        this.#place(parent, name, () => mknodat(fd, bytes, TYPE.characterDevice, deviceOf(entry)));
    }
    if (entry.type !== 'symlink')
      dropInherited(pathThrough(fd, bytes), this.#tree.inheritedIn(parent));
    this.#finishAt(fd, name, entry);
    this.#tree.account.other(fd, bytes);
  }

  /** Whatever has the name goes. */
  #place<T>(parent: Directory, name: Name, make: () => T): T {
    let made: T;
    try {
      made = make();
    } catch (error) {
      if (!isErrno(error, ERRNO.EEXIST)) throw error;
      this.#tree.remove(parent, name);
      made = make();
    }
    this.#tree.added(parent, name);
    return made;
  }

  #makeFile(entry: TarEntry, parent: Directory, name: Name): void {
    const inherited = this.#tree.inheritedIn(parent);
    const [above, bytes] = [this.#tree.writable(parent), bytesOfName(name)];
    const fd = this.#place(parent, name, () =>
      openat(above, bytes, O.WRONLY | O.CREAT | O.EXCL | O.NOFOLLOW, entry.mode & 0o777),
    );
    this.#body.open({ fd, entry, inherited, place: { directory: parent.path, name } });
  }

  #makeDirectory(entry: TarEntry, parent: Directory, name: Name): void {
    const { directory, existed } = this.#tree.makeDirectory(parent, name);
    const fd = this.#tree.writable(directory);
    if (existed) this.#tree.removeXattrs(fd);
    finishOpen(fd, entry);
    directory.inherited = undefined;
    const { mtime, atime } = entry;
    this.#directoryTimes.set(directory.path, { mtime, atime });
  }

  #link(entry: TarEntry, parent: Directory, name: Name): void {
    const path = cleaned(entry.linkPath);
    const [above, last] = split(path);
    const directory = this.#tree.find(above);
    const from = directory && last !== '' ? this.#tree.linkable(directory, last) : undefined;
    if (from === undefined) {
      throw invalid(`a hard link to ${quoteName(path)}, which is no file of this tree`);
    }
    const to = this.#tree.writable(parent);
    const [source, bytes] = [bytesOfName(last), bytesOfName(name)];
    const { identity } = this.#stat.readAt(from, source);
    if (!this.#stat.findAt(to, bytes)) linkat(from, source, to, bytes);
    else if (this.#stat.identity !== identity) {
      // What is in the way may be a directory with the file itself.
      linkat(from, source, to, ASIDE);
      this.#tree.remove(parent, name);
      renameat(to, ASIDE, to, bytes);
    }
    this.#tree.added(parent, name);
    this.#finishLink(to, name, entry);
  }

  #linkBody({ directory, areNew }: Bodies, entry: TarEntry, parent: Directory, name: Name): void {
    const from = bytesOfName(String(entry.offset));
    const to = this.#tree.writable(parent);
    this.#place(parent, name, () => linkat(directory, from, to, bytesOfName(name)));
    if (areNew) return;
    const fd = openat(directory, from, O.RDONLY | O.NOFOLLOW);
    try {
      fchmod(fd, entry.mode);
      finishNew(fd, entry, 'group');
    } finally {
      close(fd);
    }
  }

  /** The last entry of a file counts, but for its extended attributes, which links do not carry. */
  #finishLink(dirfd: number, name: Name, entry: TarEntry): void {
    const bytes = bytesOfName(name);
    lchownat(dirfd, bytes, entry.uid, entry.gid);
    lchmodat(dirfd, bytes, entry.mode);
    lutimensat(dirfd, bytes, timesOf(entry));
  }

  #finishAt(dirfd: number, name: Name, entry: TarEntry): void {
    const bytes = bytesOfName(name);
    lchownat(dirfd, bytes, entry.uid, entry.gid);
    if (entry.xattrs.size > 0) setXattrs(pathThrough(dirfd, bytes), entry);
    if (entry.type !== 'symlink') lchmodat(dirfd, bytes, entry.mode);
    lutimensat(dirfd, bytes, timesOf(entry));
  }
}

/** For messages. */
const nameOf = ({ path }: TarEntry): string => quoteName(path.toString('latin1'));

/** Where a reader of entries is that came to this one. */
export const placeBehind = (entry: TarEntry | undefined): string =>
  entry === undefined ? 'before its first entry' : `in or behind entry ${nameOf(entry)}`;

/** What went wrong with an entry, as an OpError where it was expected to. */
export function describeAt(entry: TarEntry | undefined, error: unknown): Error {
  const name = entry === undefined ? 'an entry' : nameOf(entry);
  return describe(error, `layer, entry ${name} at byte ${entry?.offset ?? '?'}`);
}

/**
 * The directory that an entry names, and the name in it, empty for the root.
 * @throws OpError InvalidArgument for what cannot be in any tree
 */
export function placeOf({ path, type }: TarEntry): readonly [above: string, name: Name] {
  const [above, name] = split(cleaned(path));
  if (isBelowWhiteout(above)) throw invalid('is below a whiteout');
  if (name === '' && type !== 'directory') {
    throw invalid('the root cannot be anything but a directory');
  }
  return [above, name];
}

/**
 * What a whiteout hides.
 * @throws OpError InvalidArgument
 */
export function hiddenBy(whiteout: Name): Name {
  const hidden = whiteout.slice(WHITEOUT.length);
  if (hidden === '' || hidden === '.' || hidden === '..') {
    throw invalid('a whiteout of nothing, or of a directory that holds it');
  }
  return hidden;
}

/** The directory, and the name in it. */
function split(path: string): readonly [above: string, name: Name] {
  const slash = path.lastIndexOf('/');
  return [path.slice(0, Math.max(slash, 0)), path.slice(slash + 1)];
}

const invalid = (why: string): OpError => new OpError('InvalidArgument', why);

function describe(error: unknown, what: string): Error {
  if (error instanceof OpError) {
    return new OpError(error.code, `${what}: ${error.message}`, { cause: error });
  }
  const translated = fromSystemError(error, what);
  return isErrno(error, ERRNO.ENAMETOOLONG, ERRNO.EMLINK)
    ? invalid(translated.message)
    : translated;
}

/**
 * As if the root were the only directory there is: `..` goes up by one name, and never above it.
 * @throws OpError InvalidArgument for a NUL, which would cut the name
 */
function cleaned(path: Buffer): string {
  const text = path.toString('latin1');
  if (text.includes('\0')) throw invalid('a name with a NUL character');
  if (!/(?:^|\/)\.{0,2}(?:\/|$)/.test(text)) return text;
  const names: Name[] = [];
  for (const name of text.split('/')) {
    if (name === '..') names.pop();
    else if (name !== '' && name !== '.') names.push(name);
  }
  return names.join('/');
}

const isBelowWhiteout = (path: string): boolean =>
  path.startsWith(WHITEOUT) || path.includes(`/${WHITEOUT}`);

/** As mknod(2) takes it, packed as the C library does. */
const deviceOf = ({ deviceMajor: major, deviceMinor: minor }: TarEntry): number =>
  (major << 8) + (minor & 0xff) + (minor >>> 8) * 2 ** 20;

/** The target as it is: nobody resolves it now. */
function target(entry: TarEntry): Buffer {
  if (entry.linkPath.includes(0)) throw invalid('a link target with a NUL character');
  return Buffer.concat([entry.linkPath, Buffer.alloc(1)]);
}
