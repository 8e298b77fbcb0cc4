import { OpError } from '../../base/errors.ts';
import { never, type Cancellation } from '../../platform/jobs/cancellation.ts';
import { removeTreeAt } from '../../platform/jobs/remove-tree.ts';
import { isFatal } from '../../platform/linux/attributes.ts';
import { readDirectory } from '../../platform/linux/directory.ts';
import { ERRNO, SystemError } from '../../platform/linux/errno.ts';
import type { Bytes } from '../../platform/linux/ffi.ts';
import {
  close,
  cstring,
  fchmod,
  fchown,
  mkdirat,
  O,
  openat,
  openChildDirectory,
  readlinkat,
  Stat,
  TYPE,
  unlinkat,
} from '../../platform/linux/files.ts';
import { getxattr, listxattr, removexattr } from '../../platform/linux/xattr.ts';
import type { Usage } from '../../snapshotters/snapshotter.ts';
import { Account } from './account.ts';
import { bytesOfName, quoteName, type Name } from './names.ts';

/** As many as the kernel follows in one lookup, times six: a chain may be long, but it ends. */
const LINKS_MAX = 255;
/** Open directories at once; beyond, all are closed and found again. */
const OPEN_MAX = 1024;

/** Of directories that no entry tells of. */
export const NEW_MODE = 0o755;

/** What the kernel gives to all that is made in a directory, whatever its maker asks for. */
export type Inherited = 'nothing' | 'group' | 'access lists';

const DEFAULT_ACCESS_LIST = cstring('system.posix_acl_default');

/** A directory of the tree as containers see it. */
export interface Directory {
  /** Below the root, without links; empty for the root. */
  readonly path: string;
  readonly name: Name;
  readonly parent: Directory | undefined;
  /** Where the layer writes; undefined while only overlay's lower layers have the directory. */
  fd: number | undefined;
  /** Directories of overlay's lower layers that show through, the nearest first. */
  lowers: readonly number[];
  /** The layer made it, so that everything in it is the layer's. */
  fresh: boolean;
  /** Undefined until it is asked for, and when an entry changed the directory. */
  inherited: Inherited | undefined;
  readonly children: Map<Name, Directory>;
}

export type Found =
  | { readonly kind: 'directory'; readonly directory: Directory }
  | { readonly kind: 'link'; readonly target: Name }
  | { readonly kind: 'other' };

/**
 * The tree that a layer is applied to. Names are resolved here and nowhere else: directory by directory
 * from the root, each opened without following links in a directory that is already open, so that
 * whatever the layer, its parents or somebody beside us put in the way, nothing leads outside. Links
 * are followed by our own reading, `..` stays inside.
 */
export abstract class Tree implements Disposable {
  readonly root: Directory;
  /** Of what the layer puts into a tree that was empty; overlay's lower layers are none of it. */
  readonly account: Account;
  protected readonly cancellation: Cancellation;
  protected readonly stat = new Stat();
  /** Of extended attributes that are no part of the tree: overlay's own. */
  protected readonly ownXattrs: string;
  /** By the path that a layer names, links included. */
  readonly #byPath = new Map<string, Directory>();
  readonly #wasEmpty: boolean;
  #open = 0;

  /** Owns `root` and `lowers` from here on. */
  constructor(
    { root, lowers, ownXattrs }: { root: number; lowers: readonly number[]; ownXattrs: string },
    cancellation: Cancellation,
  ) {
    this.ownXattrs = ownXattrs;
    this.cancellation = cancellation;
    this.#wasEmpty = isEmpty(root);
    this.account = new Account(root);
    this.account.directory('');
    if (!this.#wasEmpty) this.account.giveUp();
    const fresh = lowers.length === 0 && this.#wasEmpty;
    const children = new Map<Name, Directory>();
    const inherited = undefined;
    const [path, name, parent] = ['', '', undefined];
    this.root = { path, name, parent, fd: root, lowers, fresh, inherited, children };
  }

  /** What a name stands for; undefined for nothing, and for what is hidden. */
  abstract lookup(parent: Directory, name: Name): Found | undefined;

  /** The descriptor to write through. */
  abstract writable(directory: Directory): number;

  /**
   * Makes a directory, or takes the one that is there, with what it holds.
   * @returns whether it was there before, in a layer below or in this one
   */
  abstract makeDirectory(
    parent: Directory,
    name: Name,
  ): { readonly directory: Directory; readonly existed: boolean };

  /** To be told of all that the layer puts into a directory but directories, which are noticed here. */
  abstract added(parent: Directory, name: Name): void;

  /**
   * Removes what layers below have under a name, and nothing that this layer put there, in whatever order
   * (OCI image specification, layer.md, "Whiteouts").
   */
  abstract whiteout(parent: Directory, name: Name): void;

  /** Removes all that layers below have in a directory (ibid., "Opaque Whiteout"). */
  abstract makeOpaque(directory: Directory): void;

  /**
   * Where an existing file can be linked from: an open directory that has it under the same name.
   * @returns undefined where there is no such file; directories have no links
   */
  abstract linkable(directory: Directory, name: Name): number | undefined;

  /**
   * Times that directories are to have although something further below changed. By path, for
   * futimens(2).
   */
  abstract untouchedTimes(): Iterable<readonly [string, Bytes]>;

  /** The directory that a cleaned path names; made where it is missing. */
  directory(path: string): Directory {
    return this.#resolve(path, true) ?? this.root;
  }

  /** The same; undefined where it is missing. */
  find(path: string): Directory | undefined {
    return this.#resolve(path, false);
  }

  /** The directory at a path that has no links; undefined where something else is, or nothing. */
  at(path: string): Directory | undefined {
    let here = this.root;
    for (const name of path === '' ? [] : path.split('/')) {
      const found = this.lookup(here, name);
      if (found?.kind !== 'directory') return undefined;
      here = found.directory;
    }
    return here;
  }

  /** Removes what the layer or a plain tree has under a name. What overlay's lower layers have shows again. */
  remove(parent: Directory, name: Name, cancellation = this.cancellation): void {
    const fd = parent.fd;
    if (fd === undefined) return;
    this.account.giveUp();
    this.forget(parent, name);
    const bytes = bytesOfName(name);
    const errno = unlinkat(fd, bytes);
    if (errno === ERRNO.ENOENT) return;
    if (errno === ERRNO.EISDIR) {
      removeTreeAt(reopen(fd), bytes, pathOf(parent, name), cancellation);
    } else if (errno !== 0) throw new SystemError(errno, 'unlink');
  }

  /** Of the tree's own directories and files: all but overlay's. */
  removeXattrs(fd: number): void {
    for (const bytes of listxattr(fd)) {
      const name = Buffer.from(bytes).toString('latin1', 0, bytes.length - 1);
      if (name.startsWith(this.ownXattrs)) continue;
      const errno = removexattr(fd, bytes);
      if (isFatal(errno)) throw new SystemError(errno, 'removexattr');
    }
  }

  /** Takes back what the layer wrote, where nothing else was there; also for a caller that gave up. */
  clear(): void {
    if (!this.#wasEmpty) return;
    this.root.lowers = [];
    for (const name of this.namesIn(this.root)) this.remove(this.root, name, never);
  }

  /** What is made in a directory gets. acl(5), "Object creation and default ACLs"; mkdir(2) on groups */
  inheritedIn(directory: Directory): Inherited {
    directory.inherited ??= this.#readInherited(this.writable(directory));
    return directory.inherited;
  }

  /**
   * Of all there is now, with the root, once it is on the disk.
   * @returns undefined where only a walk tells
   */
  usage(): Usage | undefined {
    return this.account.settle(this.writable(this.root));
  }

  /** Between two entries: gives descriptors back when there are many. */
  rest(): void {
    if (this.#open <= OPEN_MAX) return;
    for (const name of this.root.children.keys()) this.forget(this.root, name);
  }

  [Symbol.dispose](): void {
    for (const name of this.root.children.keys()) this.forget(this.root, name);
    for (const fd of [this.root.fd, ...this.root.lowers]) if (fd !== undefined) close(fd);
  }

  /** To what a directory has that no entry tells of. */
  protected reset(directory: Directory): void {
    const fd = this.writable(directory);
    fchown(fd, 0, 0);
    this.removeXattrs(fd);
    fchmod(fd, NEW_MODE);
    directory.inherited = undefined;
  }

  /** A directory just made in another, however that one is. */
  protected openNew(parent: Directory, name: Name): number {
    const fd = this.openIn(this.writable(parent), name);
    const inherited = this.inheritedIn(parent);
    if (inherited !== 'nothing') fchown(fd, 0, 0);
    if (inherited === 'access lists') this.removeXattrs(fd);
    fchmod(fd, NEW_MODE);
    return fd;
  }

  /** What is visible in a directory. */
  protected namesIn(directory: Directory): readonly Name[] {
    const names = new Set<Name>();
    for (const fd of [directory.fd, ...directory.lowers]) {
      if (fd !== undefined) for (const name of namesOf(fd)) names.add(name);
    }
    return [...names].filter((name) => this.lookup(directory, name) !== undefined);
  }

  /** Of the thing itself, when it is a link; undefined where there is nothing. Fills `stat`. */
  protected modeAt(dirfd: number, name: Bytes): number | undefined {
    return this.stat.findAt(dirfd, name) ? this.stat.mode : undefined;
  }

  /** What is no directory. */
  protected described(dirfd: number, name: Bytes, mode: number): Found {
    if ((mode & TYPE.mask) !== TYPE.link) return { kind: 'other' };
    const target = Buffer.from(readlinkat(dirfd, name));
    return { kind: 'link', target: target.toString('latin1', 0, target.length - 1) };
  }

  protected openIn(dirfd: number, name: Name): number {
    const fd = openChildDirectory(dirfd, bytesOfName(name));
    this.#open++;
    return fd;
  }

  protected mkdir(parent: Directory, name: Name, mode: number): void {
    mkdirat(this.writable(parent), bytesOfName(name), mode);
    this.account.directory(pathOf(parent, name));
  }

  protected close(fd: number): void {
    this.#open--;
    close(fd);
  }

  protected add(
    parent: Directory,
    name: Name,
    more: Pick<Directory, 'fd' | 'lowers' | 'fresh'>,
  ): Directory {
    if (parent.children.has(name)) this.forget(parent, name);
    const path = pathOf(parent, name);
    const [children, inherited] = [new Map<Name, Directory>(), undefined];
    const directory: Directory = { path, name, parent, children, inherited, ...more };
    parent.children.set(name, directory);
    return directory;
  }

  /** Closes a directory and all below it; paths may lead elsewhere from now on. */
  protected forget(parent: Directory, name: Name): void {
    const directory = parent.children.get(name);
    this.#byPath.clear();
    if (directory === undefined) return;
    parent.children.delete(name);
    const pending = [directory];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      for (const fd of [next.fd, ...next.lowers]) if (fd !== undefined) this.close(fd);
      pending.push(...next.children.values());
    }
  }

  #readInherited(fd: number): Inherited {
    if (getxattr(fd, DEFAULT_ACCESS_LIST) !== undefined) return 'access lists';
    return this.stat.readOpen(fd).gid === 0 ? 'nothing' : 'group';
  }

  #resolve(path: string, create: boolean): Directory | undefined {
    if (path === '') return this.root;
    const known = this.#byPath.get(path);
    if (known !== undefined) return known;
    let end = path.length;
    let from: Directory | undefined;
    while (end > 0 && from === undefined) {
      end = Math.max(path.lastIndexOf('/', end - 1), 0);
      from = this.#byPath.get(path.slice(0, end));
    }
    let here = from ?? this.root;
    let links = 0;
    const followed = (): void => {
      if (++links > LINKS_MAX) throw refusedPath(path, 'too many links, or a loop of them');
    };
    for (const name of path.slice(end === 0 ? 0 : end + 1).split('/')) {
      const next = this.#walk(here, [name], { path, create, followed });
      if (next === undefined) return undefined;
      here = next;
      end = end === 0 ? name.length : end + 1 + name.length;
      this.#byPath.set(path.slice(0, end), here);
    }
    return here;
  }

  #walk(
    from: Directory,
    names: readonly Name[],
    { path, create, followed }: { path: string; create: boolean; followed: () => void },
  ): Directory | undefined {
    let here = from;
    const todo = names.toReversed();
    for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
      if (name === '' || name === '.') continue;
      if (name === '..') {
        here = here.parent ?? here;
        continue;
      }
      const found = this.lookup(here, name);
      if (found === undefined) {
        if (!create) return undefined;
        here = this.makeDirectory(here, name).directory;
      } else if (found.kind === 'directory') here = found.directory;
      else if (found.kind === 'link') {
        followed();
        if (found.target.startsWith('/')) here = this.root;
        for (const part of found.target.split('/').toReversed()) todo.push(part);
      } else throw refusedPath(path, `${quoteName(name)} on the way is no directory`);
    }
    return here;
  }
}

export const pathOf = ({ path }: Directory, name: Name): string =>
  path === '' ? name : `${path}/${name}`;

const refusedPath = (path: string, why: string): OpError =>
  new OpError('InvalidArgument', `path ${quoteName(path)}: ${why}`);

/** In the order of the directory. */
export function namesOf(fd: number): readonly Name[] {
  const names: Name[] = [];
  const again = reopen(fd);
  try {
    readDirectory(again, (name) => {
      names.push(Buffer.from(name).toString('latin1', 0, name.length - 1));
      return true;
    });
  } finally {
    close(again);
  }
  return names;
}

/** A descriptor of its own, whose place in the directory nobody else moves. */
const reopen = (fd: number): number =>
  openat(fd, bytesOfName('.'), O.RDONLY | O.DIRECTORY | O.NOFOLLOW);

function isEmpty(fd: number): boolean {
  const again = reopen(fd);
  try {
    return readDirectory(again, () => false);
  } finally {
    close(again);
  }
}
