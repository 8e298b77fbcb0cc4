import { randomBytes } from 'node:crypto';
import type { RequestContext } from '../base/context.ts';
import { parseDigest } from '../base/digest.ts';
import { notFound, OpError, quote } from '../base/errors.ts';
import { adaptLease, compileFilters } from '../base/filters.ts';
import { requireNamespace } from '../base/identifiers.ts';
import { labelsFromPairs, withoutEmptyLabels, type Labels } from '../base/labels.ts';
import type { Collectible, Discarded, Node, Vertex } from '../gc/collectible.ts';
import type { MetadataStore, WriteTx } from '../metadata/metadata.ts';
import { create, labelsToRecord, NamespacedRecords } from '../metadata/namespaced-records.ts';
import type { Lease, LeaseBook, LeaseManager, Resource } from './lease.ts';
import type { Books } from '../namespaces/books.ts';

interface LeaseRecord {
  readonly created: string;
  readonly labels?: readonly (readonly [string, string])[];
}

type Dependencies = Pick<Books, 'metadata' | 'namespaces' | 'gc' | 'clock'>;

/**
 * Leases and what they keep: a record each, as one lease may keep thousands of things. A lease that goes
 * takes as many of those records along as a batch should hold; the others follow. A crash between leaves
 * records of a lease that is gone, which start-up forgets, and so does who wants to make it anew.
 */
export class LocalLeaseManager implements LeaseManager, LeaseBook, Collectible {
  readonly type = 'leases';
  readonly #leases: NamespacedRecords<Lease>;
  readonly #resources: LeaseResources;
  readonly #dependencies: Dependencies;

  private constructor(
    leases: NamespacedRecords<Lease>,
    resources: LeaseResources,
    dependencies: Dependencies,
  ) {
    this.#leases = leases;
    this.#resources = resources;
    this.#dependencies = dependencies;
    dependencies.namespaces.addOccupant((name) => (leases.any(name) ? 'leases' : undefined));
  }

  static async open(dependencies: Dependencies): Promise<LocalLeaseManager> {
    const { metadata } = dependencies;
    const leases = await NamespacedRecords.load<Lease>(metadata, 'lease', {
      encode: ({ createdAt, labels }): LeaseRecord => ({
        created: String(createdAt),
        ...labelsToRecord(labels),
      }),
      decode: (value, id) => {
        const record = value as LeaseRecord;
        return { id, createdAt: BigInt(record.created), labels: labelsFromPairs(record.labels) };
      },
    });
    const isThere = ({ namespace, lease }: LeaseName): boolean =>
      leases.get(namespace, lease) !== undefined;
    const resources = await LeaseResources.open(metadata, isThere);
    return new LocalLeaseManager(leases, resources, dependencies);
  }

  async create(ctx: RequestContext, given: string, labels: Labels): Promise<Lease> {
    const namespace = requireNamespace(ctx);
    const { metadata, namespaces, clock, gc } = this.#dependencies;
    const createdAt = clock.now();
    const id = given === '' ? `${createdAt}-${randomBytes(3).toString('base64url')}` : given;
    const lease = { id, createdAt, labels: withoutEmptyLabels(labels) };
    await this.#resources.forgetGone({ namespace, lease: id });
    await create(metadata, (tx) => {
      namespaces.ensure(tx, namespace);
      this.#leases.add(tx, namespace, id, lease);
      gc.touch({ type: this.type, namespace, key: id }, tx);
    });
    return lease;
  }

  async delete(ctx: RequestContext, id: string): Promise<void> {
    const namespace = requireNamespace(ctx);
    await this.#dependencies.metadata.update(
      (tx) => {
        this.#get(namespace, id);
        this.#delete(tx, namespace, id);
        this.#dependencies.gc.freed(tx);
      },
      { frees: true },
    );
    await this.#resources.forgetGone({ namespace, lease: id });
  }

  async list(ctx: RequestContext, filters: readonly string[]): Promise<readonly Lease[]> {
    const namespace = requireNamespace(ctx);
    const matches = await compileFilters(filters);
    return this.#leases.sorted(namespace).filter((lease) => matches(adaptLease(lease)));
  }

  async addResource(ctx: RequestContext, id: string, resource: Resource): Promise<void> {
    const namespace = requireNamespace(ctx);
    await this.#dependencies.metadata.update((tx) => {
      this.#get(namespace, id);
      checkResource(resource);
      this.#add(tx, { namespace, lease: id }, resource);
    });
  }

  async deleteResource(ctx: RequestContext, id: string, resource: Resource): Promise<void> {
    const namespace = requireNamespace(ctx);
    await this.#dependencies.metadata.update(
      (tx) => {
        this.#get(namespace, id);
        checkResource(resource);
        this.#resources.delete(tx, { namespace, lease: id }, resource);
        this.#dependencies.gc.freed(tx);
      },
      { frees: true },
    );
  }

  async listResources(ctx: RequestContext, id: string): Promise<readonly Resource[]> {
    const namespace = requireNamespace(ctx);
    this.#get(namespace, id);
    // By type and id, as containerd's are; mounts, which no client can add, are not among them there either.
    const all = Array.from(this.#resources.of({ namespace, lease: id }));
    const shown = all.filter(({ type }) => type !== 'mounts');
    return shown.toSorted((a, b) =>
      a.type === b.type ? compare(a.id, b.id) : compare(a.type, b.type),
    );
  }

  require(ctx: RequestContext): void {
    if (ctx.leaseId !== undefined) this.#get(requireNamespace(ctx), ctx.leaseId);
  }

  keep(tx: WriteTx, ctx: RequestContext, resource: Resource): void {
    if (ctx.leaseId === undefined) return;
    const namespace = requireNamespace(ctx);
    this.#get(namespace, ctx.leaseId);
    this.#add(tx, { namespace, lease: ctx.leaseId }, resource);
  }

  forget(tx: WriteTx, ctx: RequestContext, resource: Resource): void {
    if (ctx.leaseId === undefined) return;
    const namespace = requireNamespace(ctx);
    this.#resources.delete(tx, { namespace, lease: ctx.leaseId }, resource);
  }

  *nodes(): Iterable<Node> {
    for (const [namespace, key] of this.#leases.names()) yield { type: this.type, namespace, key };
  }

  find(namespace: string, key: string): Vertex | undefined {
    const lease = this.#leases.get(namespace, key);
    if (lease === undefined) return undefined;
    const resources = this.#resources.of({ namespace, lease: key });
    const refersTo = Iterator.from(resources).map(({ type, id }) => ({ type, namespace, key: id }));
    const { createdAt, labels } = lease;
    return { root: 'until gc.expire', createdAt, labels, refersTo };
  }

  discard(tx: WriteTx, namespace: string, key: string): Discarded | undefined {
    if (this.#leases.get(namespace, key) === undefined) return undefined;
    this.#delete(tx, namespace, key);
    return () => this.#resources.forgetGone({ namespace, lease: key });
  }

  #add(tx: WriteTx, name: LeaseName, resource: Resource): void {
    this.#resources.add(tx, name, resource);
    const { namespace } = name;
    this.#dependencies.gc.touch({ type: resource.type, namespace, key: resource.id }, tx);
  }

  #delete(tx: WriteTx, namespace: string, id: string): void {
    this.#leases.delete(tx, namespace, id);
    this.#resources.deleteAll(tx, { namespace, lease: id });
  }

  /** @throws OpError NotFound */
  #get(namespace: string, id: string): Lease {
    const lease = this.#leases.get(namespace, id);
    if (lease === undefined) throw notFound(`lease ${quote(id)}`);
    return lease;
  }
}

const compare = (a: string, b: string): number => (a < b ? -1 : Number(a > b));

interface LeaseName {
  readonly namespace: string;
  readonly lease: string;
}

const PREFIX = 'leased/';

/** A batch deletes records until their keys have this length: less than a millisecond's work. */
const KEYS_LENGTH = 1 << 16;

/** What every lease keeps. Ids are arbitrary text: a key carries all parts as JSON. */
class LeaseResources {
  readonly #metadata: MetadataStore;
  readonly #byLease = new Map<string, Map<string, Resource>>();
  /** What leases kept that are gone: these records are still there. */
  readonly #gone = new Map<string, Map<string, Resource>>();

  private constructor(metadata: MetadataStore) {
    this.#metadata = metadata;
  }

  static async open(
    metadata: MetadataStore,
    isThere: (lease: LeaseName) => boolean,
  ): Promise<LeaseResources> {
    const resources = new LeaseResources(metadata);
    const gone: LeaseName[] = [];
    for await (const [key] of metadata.scan(PREFIX)) {
      // Our own key: as #key made it.
      const parts = JSON.parse(key.slice(PREFIX.length)) as [string, string, string, string];
      const [namespace, lease, type, id] = parts;
      const name = { namespace, lease };
      if (resources.#at(name).set(key, { type, id }).size === 1 && !isThere(name)) gone.push(name);
    }
    for (const name of gone) {
      await metadata.update((tx) => resources.deleteAll(tx, name), { frees: true });
      await resources.forgetGone(name);
    }
    return resources;
  }

  /** Taken over several turns, in which they come and go. */
  of(name: LeaseName): Iterable<Resource> {
    return this.#byLease.get(nameOf(name))?.values() ?? [];
  }

  add(tx: WriteTx, name: LeaseName, resource: Resource): void {
    const key = keyOf(name, resource);
    const kept = this.#at(name);
    if (kept.has(key)) return;
    kept.set(key, resource);
    tx.put(key, 1);
    tx.onRollback(() => void this.#unset(name, key));
  }

  delete(tx: WriteTx, name: LeaseName, resource: Resource): void {
    const key = keyOf(name, resource);
    if (!this.#unset(name, key)) return;
    tx.delete(key);
    tx.onRollback(() => this.#at(name).set(key, resource));
  }

  /** All at once in memory; records beyond a batch's are left to forgetGone. */
  deleteAll(tx: WriteTx, name: LeaseName): void {
    const own = nameOf(name);
    const kept = this.#byLease.get(own);
    if (kept === undefined) return;
    this.#byLease.delete(own);
    const now = beginningOf(kept);
    for (const [key] of now) {
      kept.delete(key);
      tx.delete(key);
    }
    if (kept.size > 0) this.#gone.set(own, kept);
    tx.onRollback(() => {
      for (const [key, resource] of now) kept.set(key, resource);
      this.#gone.delete(own);
      this.#byLease.set(own, kept);
    });
  }

  /** Resolves when nothing is left of what the lease kept that had this name before. */
  async forgetGone(name: LeaseName): Promise<void> {
    const own = nameOf(name);
    for (let left = this.#gone.get(own); left !== undefined; left = this.#gone.get(own)) {
      const some = beginningOf(left);
      await this.#metadata.update(
        (tx) => {
          for (const [key] of some) tx.delete(key);
        },
        { frees: true },
      );
      for (const [key] of some) left.delete(key);
      if (left.size === 0) this.#gone.delete(own);
    }
  }

  #at(name: LeaseName): Map<string, Resource> {
    const found = this.#byLease.get(nameOf(name));
    if (found !== undefined) return found;
    const made = new Map<string, Resource>();
    this.#byLease.set(nameOf(name), made);
    return made;
  }

  #unset(name: LeaseName, key: string): boolean {
    const kept = this.#byLease.get(nameOf(name));
    const was = kept?.delete(key) ?? false;
    if (kept?.size === 0) this.#byLease.delete(nameOf(name));
    return was;
  }
}

/** As much as goes in one batch. */
function beginningOf(
  kept: ReadonlyMap<string, Resource>,
): readonly (readonly [string, Resource])[] {
  const some: (readonly [string, Resource])[] = [];
  let length = 0;
  for (const each of kept) {
    some.push(each);
    length += each[0].length;
    if (length >= KEYS_LENGTH) break;
  }
  return some;
}

const nameOf = ({ namespace, lease }: LeaseName): string => `${namespace}/${lease}`;

const keyOf = ({ namespace, lease }: LeaseName, { type, id }: Resource): string =>
  PREFIX + JSON.stringify([namespace, lease, type, id]);

/** @throws OpError InvalidArgument; Unimplemented for a type that nobody knows */
function checkResource({ type, id }: Resource): void {
  const [noun = '', ...rest] = type.split('/');
  if (!['content', 'ingests', 'images', 'snapshots'].includes(noun)) {
    throw new OpError(
      'Unimplemented',
      `resource type ${quote(type)}: use content, ingests, images or snapshots/SNAPSHOTTER`,
    );
  }
  if (rest.length !== (noun === 'snapshots' ? 1 : 0)) {
    throw new OpError('InvalidArgument', `resource type ${quote(type)} has not the right parts`);
  }
  if (noun === 'content') parseDigest(id);
}
