import type { RequestContext } from '../base/context.ts';
import { alreadyExists, notFound, OpError, quote } from '../base/errors.ts';
import { updateLabels } from '../base/fieldpaths.ts';
import { checkIdentifier } from '../base/identifiers.ts';
import { checkLabels, NO_LABELS, withoutEmptyLabels, type Labels } from '../base/labels.ts';
import type { EventPublisher } from '../events/event.ts';
import type { MetadataStore, WriteTx } from '../metadata/metadata.ts';
import { create, labelsToRecord } from '../metadata/namespaced-records.ts';
import type { Namespace, NamespaceBook, NamespaceStore } from './namespace.ts';
import type { Books } from './books.ts';

const PREFIX = 'namespace/';

interface NamespaceRecord {
  readonly labels?: readonly (readonly [string, string])[];
}

type Dependencies = Pick<Books, 'metadata' | 'events'>;

/** Each change is one record in one batch: a crash leaves the old state or the new one. */
export class LocalNamespaceStore implements NamespaceStore, NamespaceBook {
  readonly #labels = new Map<string, Labels>();
  readonly #occupants: ((name: string) => string | undefined)[] = [];
  readonly #metadata: MetadataStore;
  readonly #events: EventPublisher;

  private constructor({ metadata, events }: Dependencies) {
    this.#metadata = metadata;
    this.#events = events;
  }

  static async open(dependencies: Dependencies): Promise<LocalNamespaceStore> {
    const store = new LocalNamespaceStore(dependencies);
    for await (const [key, value] of dependencies.metadata.scan(PREFIX)) {
      // Our own record, guarded by the store's checksums: not parsed again.
      const { labels } = value as NamespaceRecord;
      store.#labels.set(key.slice(PREFIX.length), new Map(labels));
    }
    return store;
  }

  async get(_ctx: RequestContext, name: string): Promise<Namespace> {
    return { name, labels: this.labelsOf(name) };
  }

  async list(_ctx: RequestContext): Promise<readonly Namespace[]> {
    const all = Array.from(this.#labels, ([name, labels]) => ({ name, labels }));
    return all.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  async create(_ctx: RequestContext, { name, labels }: Namespace): Promise<Namespace> {
    checkIdentifier('namespace', name);
    checkLabels(labels);
    const created = { name, labels: withoutEmptyLabels(labels) };
    await create(this.#metadata, (tx) => {
      if (this.#labels.has(name)) throw alreadyExists(`namespace ${quote(name)}`);
      this.#put(tx, created);
    });
    this.#events.publish(name, { type: 'NamespaceCreate', ...created });
    return created;
  }

  async update(
    _ctx: RequestContext,
    { name, labels }: Namespace,
    fieldPaths: readonly string[],
  ): Promise<Namespace> {
    checkIdentifier('namespace', name);
    const updated = await this.#metadata.update((tx) => {
      const changed = updateLabels(this.labelsOf(name), labels, fieldPaths);
      checkLabels(changed);
      this.#put(tx, { name, labels: changed });
      return { name, labels: changed };
    });
    this.#events.publish(name, { type: 'NamespaceUpdate', ...updated });
    return updated;
  }

  async delete(_ctx: RequestContext, name: string): Promise<void> {
    await this.#metadata.update(
      (tx) => {
        const labels = this.#labels.get(name);
        if (labels === undefined) throw notFound(`namespace ${quote(name)}`);
        this.#refuseOccupied(name);
        this.#labels.delete(name);
        tx.delete(PREFIX + name);
        tx.onRollback(() => this.#labels.set(name, labels));
      },
      { frees: true },
    );
    this.#events.publish(name, { type: 'NamespaceDelete', name });
  }

  has(name: string): boolean {
    return this.#labels.has(name);
  }

  ensure(tx: WriteTx, name: string): void {
    if (!this.#labels.has(name)) this.#put(tx, { name, labels: NO_LABELS });
  }

  labelsOf(name: string): Labels {
    return this.#labels.get(name) ?? NO_LABELS;
  }

  addOccupant(occupant: (name: string) => string | undefined): void {
    this.#occupants.push(occupant);
  }

  #refuseOccupied(name: string): void {
    const held = this.#occupants.flatMap((occupant) => occupant(name) ?? []);
    if (held.length === 0) return;
    throw new OpError(
      'FailedPrecondition',
      `namespace ${quote(name)} must be empty, but it still has ${held.join(', ')}`,
    );
  }

  #put(tx: WriteTx, { name, labels }: Namespace): void {
    const before = this.#labels.get(name);
    this.#labels.set(name, labels);
    const record: NamespaceRecord = labelsToRecord(labels);
    tx.put(PREFIX + name, record);
    tx.onRollback(() => {
      if (before === undefined) this.#labels.delete(name);
      else this.#labels.set(name, before);
    });
  }
}
