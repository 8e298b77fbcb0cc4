import { alreadyExists, notFound, quote } from '../base/errors.ts';
import { labelsFromPairs, type Labels } from '../base/labels.ts';
import type { MetadataStore, WriteTx } from '../metadata/metadata.ts';
import type { SnapshotNode } from './driver.ts';
import type { Info, Kind, Usage } from './snapshotter.ts';

/** Of every record's key, before its snapshotter's name. */
const PREFIX = 'snapshot/';

/** One node of the tree. Only this file changes it. */
export interface Snapshot {
  readonly id: string;
  readonly kind: Kind;
  readonly name: string;
  readonly parent: Snapshot | undefined;
  readonly labels: Labels;
  readonly createdAt: bigint;
  readonly updatedAt: bigint;
  /** Frozen at Commit. */
  readonly usage: Usage | undefined;
  /** Children, and Prepares under way that will be children: while there are any it stays. */
  readonly children: number;
}

type Writable = { -readonly [field in keyof Snapshot]: Snapshot[field] };

/** What a change sets; everything else stays. */
type Change = Partial<Omit<Writable, 'id' | 'children'>>;

interface SnapshotRecord {
  readonly kind: Kind;
  readonly name: string;
  readonly parent?: string;
  readonly labels?: readonly (readonly [string, string])[];
  readonly created: string;
  readonly updated: string;
  readonly usage?: Usage;
}

/**
 * Names, kinds, parents, labels, times, usage and ids of one snapshotter, in memory, and their records
 * in the metadata store. Knows no driver and no disk.
 */
export class SnapshotTree {
  readonly #prefix: string;
  readonly #byName = new Map<string, Writable>();
  #lastId = 0;

  private constructor(instance: string) {
    this.#prefix = `${PREFIX}${instance}/`;
  }

  /** Snapshotters that have records, without those named; for start-up. */
  static async instancesBut(
    metadata: MetadataStore,
    names: readonly string[],
  ): Promise<readonly string[]> {
    const found = new Set<string>();
    for await (const [key] of metadata.scan(PREFIX)) {
      found.add(key.slice(PREFIX.length, key.indexOf('/', PREFIX.length)));
    }
    return [...found.difference(new Set(names))];
  }

  static async load(metadata: MetadataStore, instance: string): Promise<SnapshotTree> {
    const tree = new SnapshotTree(instance);
    const byId = new Map<string, Writable>();
    const parents = new Map<Writable, string>();
    for await (const [key, value] of metadata.scan(tree.#prefix)) {
      // Our own record, guarded by the store's checksums: not parsed again.
      const record = value as SnapshotRecord;
      const snapshot: Writable = {
        id: key.slice(tree.#prefix.length),
        kind: record.kind,
        name: record.name,
        parent: undefined,
        labels: labelsFromPairs(record.labels),
        createdAt: BigInt(record.created),
        updatedAt: BigInt(record.updated),
        usage: record.usage,
        children: 0,
      };
      byId.set(snapshot.id, snapshot);
      tree.#byName.set(snapshot.name, snapshot);
      tree.reserveId(snapshot.id);
      if (record.parent !== undefined) parents.set(snapshot, record.parent);
    }
    for (const [snapshot, parentId] of parents) {
      snapshot.parent = byId.get(parentId);
      if (snapshot.parent !== undefined) (snapshot.parent as Writable).children++;
    }
    return tree;
  }

  /** An id is never given twice while a directory of it may exist: start-up reserves those on disk too. */
  nextId(): string {
    return String(++this.#lastId);
  }
  reserveId(id: string): void {
    this.#lastId = Math.max(this.#lastId, Number(id));
  }

  find(name: string): Snapshot | undefined {
    return this.#byName.get(name);
  }
  /** @throws OpError NotFound */
  get(name: string): Snapshot {
    const snapshot = this.#byName.get(name);
    if (snapshot === undefined) throw notFound(`snapshot ${quote(name)}`);
    return snapshot;
  }
  names(): IterableIterator<string> {
    return this.#byName.keys();
  }
  all(): IterableIterator<Snapshot> {
    return this.#byName.values();
  }
  /** Some of the names below a snapshot, for a message. */
  childrenOf(snapshot: Snapshot, atMost: number): string[] {
    const names: string[] = [];
    for (const other of this.#byName.values()) {
      if (other.parent === snapshot && names.push(other.name) >= atMost) break;
    }
    return names;
  }

  /** Keeps a parent in place while its child is being made. */
  holdAsParent(snapshot: Snapshot): Disposable {
    const parent = snapshot as Writable;
    parent.children++;
    return { [Symbol.dispose]: () => void parent.children-- };
  }

  /** @throws OpError AlreadyExists */
  add(tx: WriteTx, snapshot: Omit<Snapshot, 'children'>): void {
    if (this.#byName.has(snapshot.name)) throw alreadyExists(`snapshot ${quote(snapshot.name)}`);
    const added: Writable = { ...snapshot, children: 0 };
    const parent = added.parent as Writable | undefined;
    this.#byName.set(added.name, added);
    if (parent !== undefined) parent.children++;
    this.#put(tx, added);
    tx.onRollback(() => {
      this.#byName.delete(added.name);
      if (parent !== undefined) parent.children--;
    });
  }

  /** @throws OpError AlreadyExists when the change gives a name that is taken */
  change(tx: WriteTx, snapshot: Snapshot, change: Change): void {
    const changed = snapshot as Writable;
    const before = { ...changed };
    const { name = before.name, parent = before.parent } = change;
    if (name !== before.name && this.#byName.has(name))
      throw alreadyExists(`snapshot ${quote(name)}`);
    Object.assign(changed, change);
    this.#move(changed, before.name, before.parent, parent);
    this.#put(tx, changed);
    tx.onRollback(() => {
      const { children } = changed;
      Object.assign(changed, before, { children });
      this.#move(changed, name, parent, before.parent);
    });
  }

  remove(tx: WriteTx, snapshot: Snapshot): void {
    const parent = snapshot.parent as Writable | undefined;
    this.#byName.delete(snapshot.name);
    if (parent !== undefined) parent.children--;
    tx.delete(this.#prefix + snapshot.id);
    tx.onRollback(() => {
      this.#byName.set(snapshot.name, snapshot);
      if (parent !== undefined) parent.children++;
    });
  }

  #move(snapshot: Writable, oldName: string, oldParent?: Snapshot, newParent?: Snapshot): void {
    if (snapshot.name !== oldName) {
      this.#byName.delete(oldName);
      this.#byName.set(snapshot.name, snapshot);
    }
    if (oldParent === newParent) return;
    if (oldParent !== undefined) (oldParent as Writable).children--;
    if (newParent !== undefined) (newParent as Writable).children++;
  }

  #put(tx: WriteTx, snapshot: Snapshot): void {
    const record: SnapshotRecord = {
      kind: snapshot.kind,
      name: snapshot.name,
      created: String(snapshot.createdAt),
      updated: String(snapshot.updatedAt),
      ...(snapshot.parent === undefined ? {} : { parent: snapshot.parent.id }),
      ...(snapshot.labels.size === 0 ? {} : { labels: [...snapshot.labels] }),
      ...(snapshot.usage === undefined ? {} : { usage: snapshot.usage }),
    };
    tx.put(this.#prefix + snapshot.id, record);
  }
}

/** A snapshot as its driver sees it. */
export function nodeOf(snapshot: Snapshot): SnapshotNode {
  const parentIds: string[] = [];
  for (let at = snapshot.parent; at !== undefined; at = at.parent) parentIds.push(at.id);
  return { id: snapshot.id, kind: snapshot.kind, parentIds, labels: snapshot.labels };
}

export function infoOf(snapshot: Snapshot): Info {
  return {
    kind: snapshot.kind,
    name: snapshot.name,
    parent: snapshot.parent?.name ?? '',
    labels: snapshot.labels,
    createdAt: snapshot.createdAt,
    updatedAt: snapshot.updatedAt,
  };
}
