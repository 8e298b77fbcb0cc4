import type { Cancellation } from '../../platform/jobs/cancellation.ts';
import { ERRNO, isErrno } from '../../platform/linux/errno.ts';
import type { Bytes } from '../../platform/linux/ffi.ts';
import { TYPE } from '../../platform/linux/files.ts';
import { bytesOfName, type Name } from './names.ts';
import { NEW_MODE, pathOf, Tree, type Directory, type Found } from './tree.ts';

/** Overlay's marks mean nothing here, and must not come to mean something. */
const OWN_XATTRS = 'trusted.overlay.';

/**
 * A tree in one directory: what layers below brought lies beside what this layer brings. Whiteouts must tell
 * the two apart, so what the layer puts into directories of layers below is written down.
 */
export class PlainTree extends Tree {
  /** Paths that the layer put into directories of layers below. */
  readonly #added = new Set<string>();
  /** Those of them that are directories with nothing of a layer below. */
  readonly #made = new Set<string>();
  /** All directories above them. */
  readonly #aboveAdded = new Set<string>();

  /** Owns `root` from here on. */
  constructor(root: number, cancellation: Cancellation) {
    super({ root, lowers: [], ownXattrs: OWN_XATTRS }, cancellation);
  }

  lookup(parent: Directory, name: Name): Found | undefined {
    const known = parent.children.get(name);
    if (known !== undefined) return { kind: 'directory', directory: known };
    const [above, bytes] = [this.writable(parent), bytesOfName(name)];
    const mode = this.modeAt(above, bytes);
    if (mode === undefined) return undefined;
    if ((mode & TYPE.mask) !== TYPE.directory) return this.described(above, bytes, mode);
    const fresh = parent.fresh || this.#made.has(pathOf(parent, name));
    const directory = this.add(parent, name, { fd: this.openIn(above, name), lowers: [], fresh });
    return { kind: 'directory', directory };
  }

  writable({ fd, path }: Directory): number {
    if (fd === undefined) throw new Error(`directory ${path} is not open`);
    return fd;
  }

  makeDirectory(parent: Directory, name: Name): { directory: Directory; existed: boolean } {
    try {
      this.mkdir(parent, name, NEW_MODE);
    } catch (error) {
      if (!isErrno(error, ERRNO.EEXIST)) throw error;
      const found = this.lookup(parent, name);
      if (found?.kind === 'directory') {
        this.added(parent, name);
        return { directory: found.directory, existed: true };
      }
      this.remove(parent, name);
      this.mkdir(parent, name, NEW_MODE);
    }
    const fd = this.openNew(parent, name);
    this.added(parent, name);
    if (!parent.fresh) this.#made.add(pathOf(parent, name));
    return { directory: this.add(parent, name, { fd, lowers: [], fresh: true }), existed: false };
  }

  added(parent: Directory, name: Name): void {
    if (parent.fresh) return;
    this.#added.add(pathOf(parent, name));
    for (let above: Directory | undefined = parent; above !== undefined; above = above.parent) {
      if (this.#aboveAdded.has(above.path)) return;
      this.#aboveAdded.add(above.path);
    }
  }

  whiteout(parent: Directory, name: Name): void {
    this.#prune(parent, name);
  }

  makeOpaque(directory: Directory): void {
    for (const name of this.namesIn(directory)) this.#prune(directory, name);
  }

  linkable(directory: Directory, name: Name): number | undefined {
    const found = this.lookup(directory, name);
    return found === undefined || found.kind === 'directory' ? undefined : this.writable(directory);
  }

  untouchedTimes(): Iterable<readonly [string, Bytes]> {
    return [];
  }

  /** @returns whether something of the layer stays */
  #prune(parent: Directory, name: Name): boolean {
    const path = pathOf(parent, name);
    if (parent.fresh || this.#made.has(path)) return true;
    const found = this.lookup(parent, name);
    if (found === undefined) return false;
    let stays = this.#added.has(path);
    if (found.kind === 'directory' && (stays || this.#aboveAdded.has(path))) {
      const { directory } = found;
      const kept = this.namesIn(directory).filter((child) => this.#prune(directory, child));
      if (!stays && kept.length > 0) {
        this.reset(directory);
        this.added(parent, name);
        stays = true;
      }
    }
    if (!stays) this.remove(parent, name);
    return stays;
  }
}
