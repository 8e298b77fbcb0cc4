import { OpError } from '../../base/errors.ts';
import { pathThrough } from '../../platform/linux/attributes.ts';
import { DirectoryChain, readDirectory } from '../../platform/linux/directory.ts';
import { ERRNO, isErrno } from '../../platform/linux/errno.ts';
import { close, O, openat, readlinkat, Stat } from '../../platform/linux/files.ts';
import { bytesOfName, type Name } from '../apply/names.ts';
import { isWhiteout, nodeOf, type Node } from './node.ts';
import { attributesAt, type Attributes } from './xattrs.ts';

/** Never through a link, and never waiting for a fifo that took the file's place. */
const FILE = O.RDONLY | O.NOFOLLOW | O.NONBLOCK;

/** One of the trees that are compared, and the directory in it where the walk is. */
export class Side implements Disposable {
  readonly #chain: DirectoryChain;
  readonly #marks: string | undefined;
  readonly #stat = new Stat();

  /**
   * Owns `root` from here on.
   * @param marks the prefix of overlayfs's attributes, where this is an upper directory
   */
  constructor(root: number, marks?: string) {
    this.#chain = new DirectoryChain(root);
    this.#marks = marks;
  }

  /** Of the root, while the walk is there. */
  root(): { readonly node: Node; readonly attributes: Attributes } {
    const { fd } = this.#chain;
    return { node: nodeOf(this.#stat.readOpen(fd)), attributes: attributesAt(fd, this.#marks) };
  }

  /** Adds the names in the directory; to be asked once. */
  addNames(names: Set<Name>): void {
    readDirectory(this.#chain.fd, (name) => {
      names.add(Buffer.from(name).toString('latin1', 0, name.length - 1));
      return true;
    });
  }

  /** Undefined for nothing, and for a mark of nothing. */
  find(name: Name): Node | undefined {
    if (!this.#stat.findAt(this.#chain.fd, bytesOfName(name))) return undefined;
    const node = nodeOf(this.#stat);
    return isWhiteout(node) ? undefined : node;
  }

  attributes(name: Name): Attributes {
    return attributesAt(pathThrough(this.#chain.fd, bytesOfName(name)), this.#marks);
  }

  target(name: Name): Name {
    const target = Buffer.from(readlinkat(this.#chain.fd, bytesOfName(name)));
    return target.toString('latin1', 0, target.length - 1);
  }

  /**
   * The file's bytes, to be closed by the caller, and its size now.
   * @throws OpError Aborted when it is a file no more
   */
  openFile(name: Name): { readonly fd: number; readonly size: number; readonly blocks: number } {
    const fd = this.#open(bytesOfName(name));
    const stat = this.#stat.readOpen(fd);
    if (nodeOf(stat).type === 'file') return { fd, size: stat.size, blocks: stat.blocks };
    close(fd);
    throw new OpError('Aborted', 'was replaced while its tree was walked; try again');
  }

  enter(name: Name): void {
    this.#chain.enter(bytesOfName(name));
  }

  leave(): void {
    this.#chain.leave();
  }

  [Symbol.dispose](): void {
    this.#chain[Symbol.dispose]();
  }

  /** That it was read is not recorded, where we may say so. */
  #open(name: Uint8Array): number {
    try {
      return openat(this.#chain.fd, name, FILE | O.NOATIME);
    } catch (error) {
      if (!isErrno(error, ERRNO.EPERM)) throw error;
      return openat(this.#chain.fd, name, FILE);
    }
  }
}
