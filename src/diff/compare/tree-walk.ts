import type { Cancellation } from '../../platform/jobs/cancellation.ts';
import type { Name } from '../apply/names.ts';
import { ContentComparer } from './contents.ts';
import { failureAt } from './failure.ts';
import { haveSameAttributes, isSameTime, type Node } from './node.ts';
import type { Side } from './side.ts';
import { areSame, type Attributes, type Xattrs } from './xattrs.ts';

/** A directory of the newer tree. */
export interface Directory {
  /** Below the root; empty for the root. */
  readonly path: Name;
  readonly node: Node;
  readonly xattrs: Xattrs;
  readonly above: Directory | undefined;
}

/** Anything but a directory, in the newer tree. */
export interface Leaf {
  readonly directory: Directory;
  readonly name: Name;
  readonly node: Node;
}

/**
 * What distinguishes two trees, in the order of a walk: directories before what they hold, names sorted
 * by their bytes. Files are to be read before the next difference is asked for.
 */
export type Difference =
  /** New, or with other attributes than it had. */
  | { readonly kind: 'directory'; readonly directory: Directory }
  | { readonly kind: 'leaf'; readonly leaf: Leaf }
  /** As it was, but with other names, of which some may be new. */
  | { readonly kind: 'unchanged-link'; readonly leaf: Leaf }
  | { readonly kind: 'removed'; readonly directory: Directory; readonly name: Name }
  /** Nothing of what was there in the older tree is in the newer one, but for what follows. */
  | { readonly kind: 'opaque'; readonly directory: Directory };

interface Frame {
  readonly directory: Directory;
  /** Still to be visited, the next one last. */
  readonly names: Name[];
  /** Whether the older tree has the directory too. */
  readonly isInBoth: boolean;
}

export interface Sides {
  readonly upper: Side;
  /** Undefined: nothing was there before. */
  readonly lower: Side | undefined;
  /** `upper` is an upper directory of overlayfs: it has what changed, and marks of what is gone. */
  readonly isUpperDirectory: boolean;
}

/** Files with such names would be taken for marks: no layer can hold them. OCI image specification, layer.md */
const isReserved = (name: Name): boolean => name.startsWith('.wh.');

/** Walks two trees side by side. */
export class TreeWalk {
  readonly #upper: Side;
  readonly #lower: Side | undefined;
  readonly #isUpperDirectory: boolean;
  readonly #cancellation: Cancellation;
  readonly #contents: ContentComparer;
  readonly #frames: Frame[] = [];
  /** The path being looked at. */
  #place: Name = '';

  constructor({ upper, lower, isUpperDirectory }: Sides, cancellation: Cancellation) {
    this.#upper = upper;
    this.#lower = lower;
    this.#isUpperDirectory = isUpperDirectory;
    this.#cancellation = cancellation;
    this.#contents = new ContentComparer(cancellation);
  }

  /**
   * Ones of the root itself come first. A root that differs in its time alone is none, as every new
   * snapshot has such a one.
   * @throws OpError naming the path
   */
  *differences(): Iterable<Difference> {
    try {
      yield* this.#walk();
    } catch (error) {
      throw failureAt(this.#place, error);
    }
  }

  *#walk(): Iterable<Difference> {
    const { node, attributes } = this.#upper.root();
    const before = this.#lower?.root();
    const root = { path: '', node, xattrs: attributes.carried, above: undefined };
    const isSame =
      before !== undefined &&
      haveSameAttributes(node, before.node) &&
      areSame(root.xattrs, before.attributes.carried);
    if (!isSame) yield { kind: 'directory', directory: root };
    this.#push(root, this.#lower !== undefined);
    for (let frame = this.#frames.at(-1); frame !== undefined; frame = this.#frames.at(-1)) {
      const name = frame.names.pop();
      if (name === undefined) {
        this.#pop(frame);
        continue;
      }
      this.#cancellation.check();
      this.#place = below(frame.directory, name);
      yield* this.#visit(frame, name);
    }
  }

  *#visit({ directory, isInBoth }: Frame, name: Name): Iterable<Difference> {
    const before = isInBoth ? this.#lower?.find(name) : undefined;
    const node = this.#upper.find(name);
    if (node?.type === 'directory') {
      yield* this.#visitDirectory({ directory, name, node }, before);
    } else if (node === undefined || node.type === 'socket') {
      const isGone = before !== undefined && before.type !== node?.type;
      if (isGone) yield { kind: 'removed', directory, name };
    } else {
      const leaf = { directory, name, node };
      if (before === undefined || !this.#isSameLeaf(leaf, before)) yield { kind: 'leaf', leaf };
      else if (node.links > 1) yield { kind: 'unchanged-link', leaf };
    }
  }

  *#visitDirectory(found: Leaf, before: Node | undefined): Iterable<Difference> {
    const { name, node } = found;
    const { carried, isOpaque } = this.#upper.attributes(name);
    const path = below(found.directory, name);
    const directory = { path, node, xattrs: carried, above: found.directory };
    const isInBoth = before?.type === 'directory';
    const isSame =
      isInBoth && isSameTime(node.mtime, before.mtime) && this.#isSame(directory, name, before);
    if (!isSame || isOpaque) yield { kind: 'directory', directory };
    if (isInBoth && isOpaque) yield { kind: 'opaque', directory };
    this.#upper.enter(name);
    if (isInBoth && !isOpaque) this.#lower?.enter(name);
    this.#push(directory, isInBoth && !isOpaque);
  }

  #isSame({ node, xattrs }: Pick<Directory, 'node' | 'xattrs'>, name: Name, before: Node): boolean {
    return haveSameAttributes(node, before) && areSame(xattrs, this.#lowerAttributes(name).carried);
  }

  /**
   * Of files with the same size and time nobody reads the bytes, unless the time has no nanoseconds: then
   * it may have been cut off. What is in an upper directory was opened for writing, and is always read.
   */
  #isSameLeaf({ name, node }: Leaf, before: Node): boolean {
    if (node.size !== before.size || !isSameTime(node.mtime, before.mtime)) return false;
    if (!haveSameAttributes(node, before)) return false;
    const { carried } = this.#upper.attributes(name);
    if (!areSame(carried, this.#lowerAttributes(name).carried)) return false;
    const isInDoubt = this.#isUpperDirectory || node.mtime.nanoseconds === 0;
    return !isInDoubt || this.#isSameContent(name, node);
  }

  #isSameContent(name: Name, { type, size }: Node): boolean {
    const [upper, lower] = [this.#upper, this.#lower];
    if (lower === undefined) return false;
    if (type === 'symlink') return upper.target(name) === lower.target(name);
    return type !== 'file' || size === 0 || this.#contents.areSame(upper, lower, name);
  }

  #lowerAttributes(name: Name): Attributes {
    if (this.#lower === undefined) throw new Error('compared with nothing');
    return this.#lower.attributes(name);
  }

  #push(directory: Directory, isInBoth: boolean): void {
    const names = new Set<Name>();
    this.#upper.addNames(names);
    // An upper directory has marks where names of lower ones are gone.
    if (isInBoth && !this.#isUpperDirectory) this.#lower?.addNames(names);
    const sorted = [...names].filter((name) => !isReserved(name)).toSorted();
    this.#frames.push({ directory, isInBoth, names: sorted.reverse() });
  }

  #pop({ isInBoth, directory }: Frame): void {
    this.#frames.pop();
    if (directory.above === undefined) return;
    this.#place = directory.path;
    this.#upper.leave();
    if (isInBoth) this.#lower?.leave();
  }
}

export const below = ({ path }: Directory, name: Name): Name =>
  path === '' ? name : `${path}/${name}`;
