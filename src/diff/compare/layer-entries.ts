import type { Name } from '../apply/names.ts';
import type { Time } from '../apply/pax-records.ts';
import type { LayerEntry } from './layer-entry.ts';
import type { Node } from './node.ts';
import type { Side } from './side.ts';
import { below, type Difference, type Directory, type Leaf } from './tree-walk.ts';
import type { Xattrs } from './xattrs.ts';

/** An entry, and where the bytes of its file are. */
export interface EntryWithBody {
  readonly entry: LayerEntry;
  /** In the directory where the walk is; undefined for an entry without bytes. */
  readonly file: Name | undefined;
}

const EPOCH: Time = { seconds: 0, nanoseconds: 0 };
const NO_XATTRS: Xattrs = new Map();

/**
 * Turns differences into entries as the OCI image specification's layer.md has them: the directory of each
 * entry before it, marks for what is gone, further names of a file as links to its first one.
 */
export class LayerEntries {
  readonly #upper: Side;
  /** Nanoseconds since the epoch; no time is later. */
  readonly #latest: bigint | undefined;
  /** Forgets those that nothing can follow in any more. */
  readonly #written = new WeakSet<Directory>();
  /** The path that has the bytes, by inode. */
  readonly #firstNames = new Map<string, Name>();
  /** Names of inodes that have not changed, as far as is known yet. */
  readonly #unchanged = new Map<string, Leaf[]>();

  constructor(upper: Side, latest: bigint | undefined) {
    this.#upper = upper;
    this.#latest = latest;
  }

  *of(difference: Difference): Iterable<EntryWithBody> {
    switch (difference.kind) {
      case 'directory':
        return yield* this.#directories(difference.directory);
      case 'leaf':
        return yield* this.#leaf(difference.leaf);
      case 'unchanged-link':
        return yield* this.#unchangedLink(difference.leaf);
      case 'removed':
        return yield* this.#mark(difference.directory, `.wh.${difference.name}`);
      case 'opaque':
        return yield* this.#mark(difference.directory, '.wh..wh..opq');
    }
  }

  /** One that has not been written, after those above it. */
  *#directories(directory: Directory): Iterable<EntryWithBody> {
    const missing: Directory[] = [];
    for (let each: Directory | undefined = directory; each; each = each.above) {
      if (this.#written.has(each)) break;
      missing.push(each);
    }
    for (const each of missing.reverse()) {
      this.#written.add(each);
      const { path, node, xattrs } = each;
      const entry = this.#entry(node, { type: 'directory', path: `${path || '.'}/`, xattrs });
      yield { entry, file: undefined };
    }
  }

  *#leaf({ directory, name, node }: Leaf): Iterable<EntryWithBody> {
    yield* this.#directories(directory);
    const path = below(directory, name);
    const first = node.links > 1 ? this.#firstNames.get(node.identity) : undefined;
    if (first !== undefined) return yield this.#link(node, path, first);
    yield this.#whole(path, name, node);
    if (node.links === 1) return;
    this.#firstNames.set(node.identity, path);
    const others = this.#unchanged.get(node.identity) ?? [];
    this.#unchanged.delete(node.identity);
    for (const other of others) {
      yield* this.#directories(other.directory);
      yield this.#link(node, below(other.directory, other.name), path);
    }
  }

  *#unchangedLink(leaf: Leaf): Iterable<EntryWithBody> {
    const { directory, name, node } = leaf;
    const first = this.#firstNames.get(node.identity);
    if (first === undefined) {
      const others = this.#unchanged.get(node.identity);
      if (others === undefined) this.#unchanged.set(node.identity, [leaf]);
      else others.push(leaf);
      return;
    }
    yield* this.#directories(directory);
    yield this.#link(node, below(directory, name), first);
  }

  *#mark(directory: Directory, name: Name): Iterable<EntryWithBody> {
    yield* this.#directories(directory);
    const path = below(directory, name);
    yield { entry: { ...MARK, path }, file: undefined };
  }

  #whole(path: Name, name: Name, node: Node): EntryWithBody {
    const { type } = node;
    if (type === 'socket') throw new Error('a socket is in no layer');
    const link = type === 'symlink' ? this.#upper.target(name) : '';
    const { carried: xattrs } = this.#upper.attributes(name);
    const entry = this.#entry(node, { type, path, link, xattrs });
    return { entry, file: type === 'file' ? name : undefined };
  }

  #link(node: Node, path: Name, link: Name): EntryWithBody {
    return { entry: this.#entry(node, { type: 'hardlink', path, link }), file: undefined };
  }

  #entry(
    { mode, uid, gid, mtime, major, minor }: Node,
    more: Pick<LayerEntry, 'type' | 'path'> & Partial<LayerEntry>,
  ): LayerEntry {
    const common = { mode, uid, gid, mtime: this.#clamped(mtime), major, minor };
    return { ...common, link: '', xattrs: NO_XATTRS, ...more };
  }

  #clamped(time: Time): Time {
    const latest = this.#latest;
    if (latest === undefined || nanosecondsOf(time) <= latest) return time;
    const nanoseconds = ((latest % BILLION) + BILLION) % BILLION;
    return {
      seconds: Number((latest - nanoseconds) / BILLION),
      nanoseconds: Number(nanoseconds),
    };
  }
}

const BILLION = 1_000_000_000n;

const nanosecondsOf = ({ seconds, nanoseconds }: Time): bigint =>
  BigInt(seconds) * BILLION + BigInt(nanoseconds);

const MARK = {
  type: 'file',
  link: '',
  mode: 0,
  uid: 0,
  gid: 0,
  mtime: EPOCH,
  major: 0,
  minor: 0,
  xattrs: NO_XATTRS,
} as const;
