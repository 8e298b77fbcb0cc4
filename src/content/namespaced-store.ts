import type { RequestContext } from '../base/context.ts';
import { parseDigest, type Digest } from '../base/digest.ts';
import { alreadyExists, isOpError, notFound, OpError, quote } from '../base/errors.ts';
import { updateLabels } from '../base/fieldpaths.ts';
import { adaptContent, adaptStatus, compileFilters } from '../base/filters.ts';
import { requireNamespace } from '../base/identifiers.ts';
import { checkLabels, labelsFromPairs, withoutEmptyLabels, type Labels } from '../base/labels.ts';
import type { Collectible, Discarded, Node, Vertex, Weight } from '../gc/collectible.ts';
import type { WriteTx } from '../metadata/metadata.ts';
import { labelsToRecord, NamespacedRecords } from '../metadata/namespaced-records.ts';
import type { Announced, ContentStore, Info, Status, Writer } from './content.ts';
import { NamespacedIngests } from './namespaced-ingests.ts';
import { NamespacedWriter } from './namespaced-writer.ts';
import type { Books } from '../namespaces/books.ts';

/** Whether a namespace may take up a blob that another one wrote, by its digest alone. */
export type Sharing = 'shared' | 'isolated';

/** With `isolated`: "true" lets others take up the blobs of the namespace that has this label. */
const SHAREABLE = 'containerd.io/namespace.shareable';

/** So many blobs go from the disk at a time. */
const DELETES_AT_ONCE = 256;

/** What it stands on: one store for all namespaces. */
interface Backend extends ContentStore {
  find(digest: Digest): Info | undefined;
  digests(): Iterable<Digest>;
  refs(): Iterable<string>;
  findIngest(ref: string): (Status & { readonly hasWriter: boolean }) | undefined;
  anyIngestBelow(prefix: string): boolean;
  deleteAll(digests: readonly Digest[], isWanted: (digest: Digest) => boolean): Promise<void>;
}

interface Dependencies extends Books {
  readonly sharing: Sharing;
  readonly warn: (fields: Record<string, unknown>, message: string) => void;
}

/** How one namespace sees a blob. */
interface Visible {
  readonly digest: Digest;
  readonly createdAt: bigint;
  readonly updatedAt: bigint;
  readonly labels: Labels;
}

interface VisibleRecord {
  readonly created: string;
  readonly updated: string;
  readonly labels?: readonly (readonly [string, string])[];
}

/**
 * A content store seen from one namespace: that of the request. A blob is stored once; a record for
 * each namespace says that it sees it, since when and with which labels. Refs are NAMESPACE/REF below
 * (a namespace has no slash).
 *
 * That record, the namespace's and the lease's join the batch of the blob's own record. It counts only
 * while the blob does: a crash may leave it without one, and start-up forgets it (as invariant 7 of
 * docs/durability.md has it for the blob's record). Delete takes the record away; the blob, once no
 * namespace sees it, goes with the next collection, also when a crash came between.
 */
export class NamespacedContentStore implements ContentStore, Collectible {
  readonly type = 'content';
  readonly #backend: Backend;
  readonly #visible: NamespacedRecords<Visible>;
  readonly #ingests: NamespacedIngests;
  /** Blobs below that no namespace may see any more. */
  readonly #unseen = new Set<Digest>();
  /** How many writers stand for a blob below, or are making it. */
  readonly #uses = new Map<Digest, number>();
  readonly #dependencies: Dependencies;

  private constructor(
    backend: Backend,
    visible: NamespacedRecords<Visible>,
    ingests: NamespacedIngests,
    dependencies: Dependencies,
  ) {
    this.#backend = backend;
    this.#visible = visible;
    this.#ingests = ingests;
    this.#dependencies = dependencies;
    for (const digest of backend.digests()) if (!this.#isSeen(digest)) this.#unseen.add(digest);
    const { namespaces } = dependencies;
    namespaces.addOccupant((name) => (visible.any(name) ? 'blobs' : undefined));
    namespaces.addOccupant((name) => (backend.anyIngestBelow(`${name}/`) ? 'ingests' : undefined));
  }

  static async open(backend: Backend, dependencies: Dependencies): Promise<NamespacedContentStore> {
    const { metadata, warn } = dependencies;
    const visible = await NamespacedRecords.load<Visible>(metadata, 'visible', {
      encode: ({ createdAt, updatedAt, labels }): VisibleRecord => ({
        created: String(createdAt),
        updated: String(updatedAt),
        ...labelsToRecord(labels),
      }),
      decode: (value, name) => {
        const record = value as VisibleRecord;
        return {
          digest: parseDigest(name),
          createdAt: BigInt(record.created),
          updatedAt: BigInt(record.updated),
          labels: labelsFromPairs(record.labels),
        };
      },
    });
    for (const namespace of visible.namespaces()) {
      for (const { digest } of visible.sorted(namespace)) {
        if (backend.find(digest) !== undefined) continue;
        warn({ namespace, digest }, 'namespace sees a blob that is gone: forgotten');
        await metadata.update((tx) => visible.delete(tx, namespace, digest), { frees: true });
      }
    }
    const ingests = await NamespacedIngests.open(backend, dependencies);
    return new NamespacedContentStore(backend, visible, ingests, dependencies);
  }

  async info(ctx: RequestContext, digest: Digest): Promise<Info> {
    return this.#get(requireNamespace(ctx), digest);
  }

  async update(
    ctx: RequestContext,
    change: { readonly digest: Digest; readonly labels: Labels },
    fieldPaths: readonly string[],
  ): Promise<Info> {
    const namespace = requireNamespace(ctx);
    const { metadata, clock, gc } = this.#dependencies;
    return metadata.update((tx) => {
      const info = this.#get(namespace, change.digest);
      const labels = updateLabels(info.labels, change.labels, fieldPaths);
      checkLabels(labels);
      const { digest, createdAt } = info;
      const visible = { digest, createdAt, updatedAt: clock.now(), labels };
      this.#visible.put(tx, namespace, digest, visible);
      gc.touch(this.#node(namespace, digest), tx);
      return { ...visible, size: info.size };
    });
  }

  async *walk(ctx: RequestContext, filters: readonly string[]): AsyncIterable<Info> {
    const namespace = requireNamespace(ctx);
    const matches = await compileFilters(filters);
    for (const { digest } of this.#visible.sorted(namespace)) {
      const info = this.#find(namespace, digest);
      if (info !== undefined && matches(adaptContent(info))) yield info;
    }
  }

  /** @throws OpError NotFound, unlike a store below: containerd's clients are told */
  async delete(ctx: RequestContext, digest: Digest): Promise<void> {
    const namespace = requireNamespace(ctx);
    const { metadata, leases, events } = this.#dependencies;
    await metadata.update(
      (tx) => {
        this.#get(namespace, digest);
        this.#hide(tx, namespace, digest);
        this.#dependencies.gc.freed(tx);
        leases.forget(tx, ctx, { type: 'content', id: digest });
      },
      { frees: true },
    );
    events.publish(namespace, { type: 'ContentDelete', digest });
  }

  async *read(
    ctx: RequestContext,
    digest: Digest,
    offset: number,
    size: number,
  ): AsyncIterable<Uint8Array> {
    this.#get(requireNamespace(ctx), digest);
    yield* this.#backend.read(ctx, digest, offset, size);
  }

  async status(ctx: RequestContext, ref: string): Promise<Status> {
    const below = `${requireNamespace(ctx)}/${ref}`;
    const found = await this.#backend.status(ctx, below).catch((error: unknown) => {
      throw isOpError(error, 'NotFound') ? notFound(`ingest ${quote(ref)}`) : error;
    });
    return { ...found, ref };
  }

  async statuses(ctx: RequestContext, filters: readonly string[]): Promise<readonly Status[]> {
    const prefix = `${requireNamespace(ctx)}/`;
    const matches = await compileFilters(filters);
    const all = await this.#backend.statuses(ctx, []);
    return all
      .filter(({ ref }) => ref.startsWith(prefix))
      .map((status) => ({ ...status, ref: status.ref.slice(prefix.length) }))
      .filter((status) => matches(adaptStatus(status)))
      .toSorted((a, b) => (a.ref < b.ref ? -1 : 1));
  }

  /** @throws OpError NotFound, unlike a store below */
  async abort(ctx: RequestContext, ref: string): Promise<void> {
    const namespace = requireNamespace(ctx);
    await this.status(ctx, ref);
    await this.#backend.abort(ctx, `${namespace}/${ref}`);
    if (ctx.leaseId === undefined && !this.#ingests.isLeased(namespace, ref)) return;
    const { metadata, leases } = this.#dependencies;
    await metadata.update(
      (tx) => {
        leases.forget(tx, ctx, { type: 'ingests', id: ref });
        this.#ingests.setLeased(tx, namespace, ref, false);
      },
      { frees: true },
    );
  }

  async writer(ctx: RequestContext, ref: string, announced: Announced): Promise<Writer> {
    const namespace = requireNamespace(ctx);
    if (ref === '') throw new OpError('InvalidArgument', 'an ingest needs a ref: it is empty');
    const { metadata, namespaces, leases, gc } = this.#dependencies;
    const { total = 0, expected } = announced;
    if (expected !== undefined && this.#find(namespace, expected) !== undefined) {
      // Also without a lease: the answer waits until the records it rests on are on disk.
      await metadata.update((tx) => leases.keep(tx, ctx, { type: 'content', id: expected }));
      throw alreadyExists(`content ${expected}`);
    }
    const shared = expected === undefined ? undefined : this.#shareable(expected, total);
    leases.require(ctx);
    const uses = new DisposableStack();
    if (expected !== undefined) uses.use(this.#use(namespace, expected));
    const open = (): Promise<Writer> =>
      this.#backend.writer(ctx, `${namespace}/${ref}`, { ...announced, anew: true });
    let first: Writer | undefined;
    try {
      first = shared === undefined ? await open() : undefined;
      gc.touch(this.#ingests.node(namespace, ref));
      // A lease keeps the ingest, should its writer leave it behind; one that had none, some time does.
      const isLeased = ctx.leaseId !== undefined;
      if (
        isLeased ||
        !namespaces.has(namespace) ||
        this.#ingests.isLeased(namespace, ref) !== isLeased
      ) {
        await metadata.update((tx) => {
          namespaces.ensure(tx, namespace);
          leases.keep(tx, ctx, { type: 'ingests', id: ref });
          this.#ingests.setLeased(tx, namespace, ref, isLeased);
        });
      }
    } catch (error) {
      uses.dispose();
      await first?.[Symbol.asyncDispose]();
      throw error;
    }
    return new NamespacedWriter({
      ref,
      announced,
      first,
      shared,
      now: this.#dependencies.clock.now(),
      open,
      uses,
      use: (digest) => this.#use(namespace, digest),
      left: () => gc.touch(this.#ingests.node(namespace, ref)),
      isVisible: (digest) => this.#find(namespace, digest) !== undefined,
      dropHeld: () => this.#dropHeld(ctx, `${namespace}/${ref}`),
      copy: (digest) => this.#backend.read(ctx, digest, 0, 0),
      show: (tx, digest, labels) => this.#show(tx, ctx, { ref, digest, labels }),
      hide: (tx, digest) => this.#hide(tx, namespace, digest),
      alone: (change) => metadata.update(change),
      committed: (digest, size) =>
        this.#dependencies.events.publish(namespace, { type: 'ContentCreate', digest, size }),
    });
  }

  get ingests(): Collectible {
    return this.#ingests;
  }

  *nodes(): Iterable<Node> {
    for (const [namespace, key] of this.#visible.names()) yield this.#node(namespace, key);
  }

  find(namespace: string, key: string): Vertex | undefined {
    const visible = this.#visible.get(namespace, key);
    if (visible === undefined) return undefined;
    const { createdAt, labels } = visible;
    return { root: 'with gc.root', createdAt, labels, refersTo: [] };
  }

  /** containerd tells nobody of blobs that it collects. */
  discard(tx: WriteTx, namespace: string, key: string): Discarded | undefined {
    const visible = this.#visible.get(namespace, key);
    if (visible === undefined) return undefined;
    this.#hide(tx, namespace, visible.digest);
    return () => undefined;
  }

  weigh(namespace: string, key: string): Weight {
    const digest = this.#visible.get(namespace, key)?.digest;
    // What a writer builds on stays below, whoever sees it.
    if (digest === undefined || this.#uses.has(digest)) return { bytes: 0 };
    const bytes = this.#backend.find(digest)?.size ?? 0;
    const all = this.#visible.namespaces();
    return { bytes, namespaces: all.filter((name) => this.#visible.get(name, digest)) };
  }

  *leftovers(): Iterable<readonly [Digest, number]> {
    for (const digest of this.#unseen) {
      const blob = this.#backend.find(digest);
      if (blob !== undefined && !this.#isWanted(digest)) yield [digest, blob.size];
    }
  }

  /** What no namespace sees goes from the disk. A crash before leaves it to the next start. */
  async swept(): Promise<ReadonlyMap<Digest, number>> {
    const gone = new Map<Digest, number>();
    while (this.#unseen.size > 0) {
      const some = [...this.#unseen.keys().take(DELETES_AT_ONCE)];
      for (const digest of some) this.#unseen.delete(digest);
      const sizes = some.map((digest) => this.#backend.find(digest)?.size);
      try {
        await this.#backend.deleteAll(some, (digest) => this.#isWanted(digest));
      } catch (error) {
        for (const digest of some) this.#unseen.add(digest);
        throw error;
      }
      for (const [at, digest] of some.entries()) {
        const size = sizes[at];
        if (size !== undefined && !this.#isWanted(digest)) gone.set(digest, size);
      }
    }
    await this.#ingests.forgetGone();
    return gone;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#backend[Symbol.asyncDispose]();
  }

  /** What a namespace sees is also there: its record may be of a Commit under way. */
  #find(namespace: string, digest: Digest): Info | undefined {
    const visible = this.#visible.get(namespace, digest);
    const blob = visible === undefined ? undefined : this.#backend.find(digest);
    return visible === undefined || blob === undefined
      ? undefined
      : { ...visible, size: blob.size };
  }

  /** @throws OpError NotFound */
  #get(namespace: string, digest: Digest): Info {
    const info = this.#find(namespace, digest);
    if (info === undefined) throw notFound(`content ${digest}`);
    return info;
  }

  #node(namespace: string, key: string): Node {
    return { type: this.type, namespace, key };
  }

  #isWanted(digest: Digest): boolean {
    return this.#uses.has(digest) || this.#isSeen(digest);
  }

  #isSeen(digest: Digest): boolean {
    return this.#visible
      .namespaces()
      .some((namespace) => this.#visible.get(namespace, digest) !== undefined);
  }

  #hide(tx: WriteTx, namespace: string, digest: Digest): void {
    this.#visible.delete(tx, namespace, digest);
    if (!this.#isSeen(digest)) this.#unseen.add(digest);
  }

  /** A writer builds on a blob: until it is disposed it stays, here and below. */
  #use(namespace: string, digest: Digest): Disposable {
    const { gc } = this.#dependencies;
    const hold = gc.hold(this.#node(namespace, digest));
    this.#uses.set(digest, (this.#uses.get(digest) ?? 0) + 1);
    return {
      [Symbol.dispose]: () => {
        hold[Symbol.dispose]();
        const left = (this.#uses.get(digest) ?? 1) - 1;
        if (left > 0) this.#uses.set(digest, left);
        else this.#uses.delete(digest);
        if (left > 0 || this.#isSeen(digest)) return;
        // Had it been there, a run may have left it for us.
        this.#unseen.add(digest);
        if (this.#backend.find(digest) !== undefined) gc.freed();
      },
    };
  }

  /** The blob of another namespace that may stand for bytes which a client would have to send. */
  #shareable(digest: Digest, total: number): Info | undefined {
    const blob = this.#backend.find(digest);
    if (blob === undefined || (total > 0 && total !== blob.size)) return undefined;
    const { sharing, namespaces } = this.#dependencies;
    if (sharing === 'shared') return blob;
    const shares = this.#visible
      .namespaces()
      .some(
        (other) =>
          namespaces.labelsOf(other).get(SHAREABLE) === 'true' &&
          this.#visible.get(other, digest) !== undefined,
      );
    return shares ? blob : undefined;
  }

  /** One that another writer has is that one's. */
  async #dropHeld(ctx: RequestContext, below: string): Promise<void> {
    try {
      await this.#backend.abort(ctx, below);
    } catch (error) {
      if (!isOpError(error, 'Unavailable')) throw error;
    }
  }

  /** @returns whether the namespace did not see it before */
  #show(
    tx: WriteTx,
    ctx: RequestContext,
    { ref, digest, labels }: { ref: string; digest: Digest; labels: Labels },
  ): boolean {
    const namespace = requireNamespace(ctx);
    const { namespaces, leases, gc, clock } = this.#dependencies;
    namespaces.ensure(tx, namespace);
    leases.forget(tx, ctx, { type: 'ingests', id: ref });
    this.#ingests.setLeased(tx, namespace, ref, false);
    leases.keep(tx, ctx, { type: 'content', id: digest });
    gc.touch(this.#node(namespace, digest), tx);
    if (this.#find(namespace, digest) !== undefined) return false;
    const now = clock.now();
    const visible = { digest, createdAt: now, updatedAt: now, labels: withoutEmptyLabels(labels) };
    this.#visible.put(tx, namespace, digest, visible);
    return true;
  }
}
