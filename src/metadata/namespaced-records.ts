import { alreadyExists, isOpError, quote } from '../base/errors.ts';
import type { MetadataStore, WriteTx } from './metadata.ts';

export interface RecordCodec<T> {
  /** As JSON has it. */
  encode(value: T): unknown;
  /** Our own record, guarded by the store's checksums. */
  decode(record: unknown, name: string): T;
}

/** One kind of thing: values by namespace and name, in memory, and their records. */
export class NamespacedRecords<T> {
  readonly #kind: string;
  readonly #codec: RecordCodec<T>;
  readonly #values = new Map<string, Map<string, T>>();

  private constructor(kind: string, codec: RecordCodec<T>) {
    this.#kind = kind;
    this.#codec = codec;
  }

  /** @param kind the noun, which is the first part of the records' keys: no two kinds share one */
  static async load<T>(
    metadata: MetadataStore,
    kind: string,
    codec: RecordCodec<T>,
  ): Promise<NamespacedRecords<T>> {
    const prefix = `${kind}/`;
    const records = new NamespacedRecords(kind, codec);
    for await (const [key, record] of metadata.scan(prefix)) {
      // A namespace has no slash, a name may have.
      const slash = key.indexOf('/', prefix.length);
      const name = key.slice(slash + 1);
      records.#set(key.slice(prefix.length, slash), name, codec.decode(record, name));
    }
    return records;
  }

  get(namespace: string, name: string): T | undefined {
    return this.#values.get(namespace)?.get(name);
  }
  /** Whether there is any in the namespace. */
  any(namespace: string): boolean {
    return this.#values.has(namespace);
  }
  namespaces(): readonly string[] {
    return [...this.#values.keys()];
  }
  /** Namespace and name of all; taken over several turns, in which they come and go. */
  *names(): Iterable<readonly [namespace: string, name: string]> {
    for (const [namespace, values] of this.#values) {
      for (const name of values.keys()) yield [namespace, name];
    }
  }
  /** By name, as containerd's lists are. */
  sorted(namespace: string): readonly T[] {
    const entries = [...(this.#values.get(namespace) ?? [])];
    return entries.toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, value]) => value);
  }

  /** @throws OpError AlreadyExists */
  add(tx: WriteTx, namespace: string, name: string, value: T): void {
    if (this.get(namespace, name) !== undefined)
      throw alreadyExists(`${this.#kind} ${quote(name)}`);
    this.put(tx, namespace, name, value);
  }

  put(tx: WriteTx, namespace: string, name: string, value: T): void {
    const before = this.get(namespace, name);
    this.#set(namespace, name, value);
    tx.put(this.#key(namespace, name), this.#codec.encode(value));
    tx.onRollback(() => this.#restore(namespace, name, before));
  }

  delete(tx: WriteTx, namespace: string, name: string): void {
    const before = this.get(namespace, name);
    if (before === undefined) return;
    this.#unset(namespace, name);
    tx.delete(this.#key(namespace, name));
    tx.onRollback(() => this.#restore(namespace, name, before));
  }

  #restore(namespace: string, name: string, before: T | undefined): void {
    if (before === undefined) this.#unset(namespace, name);
    else this.#set(namespace, name, before);
  }

  #set(namespace: string, name: string, value: T): void {
    const values = this.#values.get(namespace);
    if (values === undefined) this.#values.set(namespace, new Map([[name, value]]));
    else values.set(name, value);
  }

  #unset(namespace: string, name: string): void {
    const values = this.#values.get(namespace);
    values?.delete(name);
    if (values?.size === 0) this.#values.delete(namespace);
  }

  #key(namespace: string, name: string): string {
    return `${this.#kind}/${namespace}/${name}`;
  }
}

/**
 * Runs a creating change. "Already exists" is an answer callers build on, so it waits until what is
 * there cannot be lost.
 * @throws OpError AlreadyExists as the change does
 */
export async function create<T>(metadata: MetadataStore, change: (tx: WriteTx) => T): Promise<T> {
  try {
    return await metadata.update(change);
  } catch (error) {
    if (isOpError(error, 'AlreadyExists')) await metadata.settled();
    throw error;
  }
}

/** Labels in a record; none take no room. */
export const labelsToRecord = (
  labels: ReadonlyMap<string, string>,
): { labels?: readonly (readonly [string, string])[] } =>
  labels.size === 0 ? {} : { labels: [...labels] };
