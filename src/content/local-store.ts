import { open, readdir, rename, stat, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import type { RequestContext } from '../base/context.ts';
import type { Digest } from '../base/digest.ts';
import { alreadyExists, notFound, OpError, quote } from '../base/errors.ts';
import { updateLabels } from '../base/fieldpaths.ts';
import { compileFilters, adaptContent, adaptStatus } from '../base/filters.ts';
import { withoutEmptyLabels, type Labels } from '../base/labels.ts';
import { KeyedLocks } from '../base/locks.ts';
import type { Along, MetadataStore } from '../metadata/metadata.ts';
import { fromSyncError, fromSystemError } from '../platform/linux/errno.ts';
import type { FileJobs } from '../platform/platform.ts';
import { BlobCache, SMALL_BLOB_BYTES } from './blob-cache.ts';
import { BlobIndex, type BlobInfo } from './blob-index.ts';
import type {
  Announced,
  ContentFolders,
  ContentStore,
  Info,
  Status,
  StoredBlob,
  StoredIngest,
  Writer,
} from './content.ts';
import { Ingest } from './ingest.ts';
import { ContentLayout } from './layout.ts';
import { readChunks } from './read-chunks.ts';
import { compareBlobs, recoverIngests } from './recover.ts';
import { IngestWriter, type WriterHost } from './writer.ts';

/** Of stat's blocks. */
const BLOCK_BYTES = 512;

export interface LocalStoreDependencies {
  readonly metadata: MetadataStore;
  readonly jobs: FileJobs;
  readonly clock: Clock;
  readonly warn: (fields: Record<string, unknown>, message: string) => void;
}

/** What `open` found. */
interface Opened {
  readonly layout: ContentLayout;
  readonly index: BlobIndex;
  readonly unitBytes: number;
  /** Paths of those without a record. */
  readonly unknownBlobs: readonly string[];
}

/**
 * The content store on one folder.
 *
 * Commit of an ingest's file: bytes on disk, then their name under blobs/, then the name on disk. A
 * small blob's file is not synced: its bytes are kept with its record until they are on disk there. A
 * crash leaves an ingest, a temporary file, a blob without a record, or a record whose small blob
 * start-up makes again; it removes the others but the first. Delete: the record, then the file
 * (invariants 6 to 8 of docs/durability.md).
 */
export class LocalContentStore implements ContentStore {
  readonly #layout: ContentLayout;
  readonly #index: BlobIndex;
  readonly #dependencies: LocalStoreDependencies;
  readonly #cache = new BlobCache();
  readonly #ingests = new Map<string, Ingest>();
  /** Refs with a writer; the promise is there, and resolves, once the writer is leaving. */
  readonly #writers = new Map<string, { leaving: Promise<void> | undefined }>();
  readonly #digestLocks = new KeyedLocks();
  readonly #recovered: Promise<void>;
  readonly #host: WriterHost;
  /** What a file of a few bytes has allocated. */
  readonly #unitBytes: number;

  private constructor(
    { layout, index, unitBytes, unknownBlobs }: Opened,
    dependencies: LocalStoreDependencies,
  ) {
    this.#layout = layout;
    this.#index = index;
    this.#unitBytes = unitBytes;
    this.#dependencies = dependencies;
    this.#host = {
      clock: dependencies.clock,
      has: (digest) => index.has(digest),
      place: (ingest, digest, labels, along) => this.#place(ingest, digest, labels, along),
      drop: (ingest) => this.#drop(ingest),
      leave: (ingest) => this.#leave(ingest),
      free: (ingest) => this.#writers.delete(ingest.ref),
    };
    this.#recovered = this.#recover(unknownBlobs);
    this.#recovered.catch(() => undefined);
  }

  /** Info, List and Read work when this resolves; the rest once the disk was compared with the records. */
  static async open(
    root: string,
    dependencies: LocalStoreDependencies,
  ): Promise<LocalContentStore> {
    const layout = new ContentLayout(root);
    const index = await BlobIndex.load(dependencies.metadata);
    try {
      await layout.make();
      const unknownBlobs = await compareBlobs({ layout, index, ...dependencies });
      const unitBytes = (await statfs(root)).bsize;
      return new LocalContentStore({ layout, index, unitBytes, unknownBlobs }, dependencies);
    } catch (error) {
      throw fromSystemError(error, `content root ${root}`);
    }
  }

  get recovered(): Promise<void> {
    return this.#recovered;
  }

  /** A blob that counts, or undefined. */
  find(digest: Digest): Info | undefined {
    return this.#index.has(digest) ? this.#index.get(digest) : undefined;
  }

  /** The digests of all blobs that count; taken over several turns, in which they come and go. */
  *digests(): Iterable<Digest> {
    for (const { digest } of this.#index.all()) yield digest;
  }

  get folders(): ContentFolders {
    return this.#layout.folders;
  }

  /** All blobs that count, where they are; taken over several turns, in which they come and go. */
  *storedBlobs(): Iterable<StoredBlob> {
    for (const { digest, size, allocated } of this.#index.all()) {
      yield { digest, path: this.#layout.blob(digest), bytes: allocated ?? this.#inUnits(size) };
    }
  }
  /** At this moment; start-up must be over. */
  *storedIngests(): Iterable<StoredIngest> {
    for (const { ref, onDisk, folder } of this.#ingests.values()) {
      if (onDisk) yield { ref, path: folder };
    }
  }

  /** Ingests by ref, at this moment; start-up must be over. */
  refs(): Iterable<string> {
    return this.#ingests.keys();
  }
  findIngest(ref: string): (Status & { readonly hasWriter: boolean }) | undefined {
    const ingest = this.#ingests.get(ref);
    const hasWriter = this.#writers.has(ref);
    return ingest === undefined ? undefined : { ...ingest.status, hasWriter };
  }

  /** Whether there is an ingest with a ref that begins so. */
  anyIngestBelow(prefix: string): boolean {
    return this.#ingests.keys().some((ref) => ref.startsWith(prefix));
  }

  /** The file with a blob's bytes, to be read only. @throws OpError NotFound */
  pathOf(digest: Digest): string {
    return this.#layout.blob(this.#index.get(digest).digest);
  }

  async info(_ctx: RequestContext, digest: Digest): Promise<Info> {
    return this.#index.get(digest);
  }

  async update(
    _ctx: RequestContext,
    change: { readonly digest: Digest; readonly labels: Labels },
    fieldPaths: readonly string[],
  ): Promise<Info> {
    const { metadata, clock } = this.#dependencies;
    return metadata.update((tx) => {
      const info = this.#index.get(change.digest);
      const labels = updateLabels(info.labels, change.labels, fieldPaths);
      return this.#index.relabel(tx, info, labels, clock.now());
    });
  }

  async *walk(_ctx: RequestContext, filters: readonly string[]): AsyncIterable<Info> {
    const matches = await compileFilters(filters);
    for (const info of this.#index.all()) if (matches(adaptContent(info))) yield info;
  }

  async delete(_ctx: RequestContext, digest: Digest): Promise<void> {
    await this.#recovered;
    await this.#digestLocks.with([digest], async () => {
      if (!this.#index.has(digest)) return;
      await this.#dependencies.metadata.update(
        (tx) => this.#index.remove(tx, this.#index.get(digest)),
        { frees: true },
      );
      this.#cache.delete(digest);
      await this.#throwAway(this.#layout.blob(digest));
    });
  }

  /**
   * As delete, for many: their records go in one batch, their files in one job, and all of them have
   * gone when it resolves. Who wants to write one of them anew waits.
   * @param isWanted asked in the turn in which a blob would go: then it stays
   */
  async deleteAll(
    digests: readonly Digest[],
    isWanted: (digest: Digest) => boolean,
  ): Promise<void> {
    await this.#recovered;
    const { metadata, jobs, warn } = this.#dependencies;
    await this.#digestLocks.with(digests, async () => {
      const gone = await metadata.update(
        (tx) => {
          const going = digests.filter((digest) => this.#index.has(digest) && !isWanted(digest));
          for (const digest of going) this.#index.remove(tx, this.#index.get(digest));
          return going;
        },
        { frees: true },
      );
      if (gone.length === 0) return;
      for (const digest of gone) this.#cache.delete(digest);
      const paths = gone.map((digest) => this.#layout.blob(digest));
      try {
        await jobs.removeTrees(paths, new AbortController().signal);
      } catch (error) {
        warn({ error }, 'collected blobs are still on disk; start-up removes them');
      }
    });
  }

  async *read(
    _ctx: RequestContext,
    digest: Digest,
    offset: number,
    size: number,
  ): AsyncIterable<Uint8Array> {
    const info = this.#index.get(digest);
    const start = Math.max(offset, 0);
    if (start > info.size) {
      throw new OpError(
        'OutOfRange',
        `content ${digest} has ${info.size} bytes, none at offset ${offset}`,
      );
    }
    const end = size > 0 ? Math.min(start + size, info.size) : info.size;
    if (start === end) return;
    const cached = this.#cache.get(digest);
    if (cached !== undefined) {
      yield cached.subarray(start, end);
      return;
    }
    await using file = await open(this.#layout.blob(digest)).catch((error: unknown) => {
      // Deleted since it was looked up, or taken away behind our back.
      throw fromSystemError(error, `content ${digest}`);
    });
    if (info.size <= SMALL_BLOB_BYTES) {
      const bytes = await file.readFile();
      if (this.#index.has(digest)) this.#cache.put(digest, bytes);
      yield bytes.subarray(start, end);
      return;
    }
    yield* readChunks(
      (buffer, position) => file.read(buffer, 0, buffer.length, position),
      start,
      end,
    );
  }

  async status(_ctx: RequestContext, ref: string): Promise<Status> {
    await this.#recovered;
    const ingest = this.#ingests.get(ref);
    if (ingest === undefined) throw notFound(`ingest ${quote(ref)}`);
    return ingest.status;
  }

  async statuses(_ctx: RequestContext, filters: readonly string[]): Promise<readonly Status[]> {
    await this.#recovered;
    const matches = await compileFilters(filters);
    return [...this.#ingests.values()]
      .map((ingest) => ingest.status)
      .filter((status) => matches(adaptStatus(status)));
  }

  async abort(_ctx: RequestContext, ref: string): Promise<void> {
    await this.#recovered;
    await this.#lockRef(ref);
    const ingest = this.#ingests.get(ref);
    try {
      if (ingest !== undefined) await this.#drop(ingest);
    } finally {
      this.#writers.delete(ref);
    }
  }

  async writer(_ctx: RequestContext, ref: string, announced: Announced): Promise<Writer> {
    if (ref === '') throw new OpError('InvalidArgument', 'an ingest needs a ref: it is empty');
    await this.#recovered;
    await this.#lockRef(ref);
    // An ingest of that ref stays: only a stream that has it drops it.
    const { expected, anew } = announced;
    if (expected !== undefined && anew !== true && this.#index.has(expected)) {
      this.#writers.delete(ref);
      await this.#dependencies.metadata.settled();
      throw alreadyExists(`content ${expected}`);
    }
    const ingest = await this.#startOrFind(ref, announced);
    const writer = new IngestWriter(ingest, this.#host);
    try {
      await ingest.resume();
      await writer.announce(announced);
      return writer;
    } catch (error) {
      await writer[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The ref is locked. */
  async #startOrFind(ref: string, { total = 0 }: Announced): Promise<Ingest> {
    const { clock, jobs } = this.#dependencies;
    const found = this.#ingests.get(ref);
    // Another size is another content: what is held cannot be its beginning.
    if (found !== undefined && (total === 0 || found.total === 0 || total === found.total)) {
      return found;
    }
    try {
      if (found !== undefined) await this.#drop(found);
    } catch (error) {
      this.#writers.delete(ref);
      throw error;
    }
    const folder = this.#layout.ingest(ref);
    const ingest = new Ingest({ ref, folder, total, now: clock.now() }, jobs);
    this.#ingests.set(ref, ingest);
    return ingest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#recovered.catch(() => undefined);
    for (const { leaving } of this.#writers.values()) await leaving;
  }

  /** Waits for a writer that is leaving. @throws Unavailable when one has it */
  async #lockRef(ref: string): Promise<void> {
    for (let held = this.#writers.get(ref); held !== undefined; held = this.#writers.get(ref)) {
      if (held.leaving === undefined) {
        throw new OpError('Unavailable', `ingest ${quote(ref)} is locked: another writer has it`);
      }
      await held.leaving;
    }
    this.#writers.set(ref, { leaving: undefined });
  }

  async #leave(ingest: Ingest): Promise<void> {
    const held = this.#writers.get(ingest.ref);
    const left = ingest.leave().catch((error: unknown) => {
      // A full disk: the bytes cannot be kept, and nobody was promised them.
      this.#dependencies.warn(
        { ref: ingest.ref, error },
        'ingest dropped: its bytes could not be kept',
      );
      return this.#drop(ingest);
    });
    const freed = left.finally(() => this.#writers.delete(ingest.ref));
    if (held !== undefined) held.leaving = freed;
    await freed;
  }

  /** A power cut brings back what was not synced, and start-up would keep it, a deleted blob's bytes even. */
  async #drop(ingest: Ingest): Promise<void> {
    this.#ingests.delete(ingest.ref);
    await ingest.close();
    if (!ingest.onDisk) return;
    await this.#throwAway(ingest.folder);
    const { ingests } = this.#layout;
    try {
      await using folder = await open(ingests);
      await folder.sync();
    } catch (error) {
      throw fromSyncError(error, `syncing ${quote(ingests)}`);
    }
  }

  async #place(
    ingest: Ingest,
    digest: Digest,
    labels: Labels,
    along: Along | undefined,
  ): Promise<void> {
    await this.#recovered;
    const { metadata, clock } = this.#dependencies;
    await this.#digestLocks.with([digest], async () => {
      if (this.#index.has(digest)) {
        await metadata.settled();
        throw alreadyExists(`content ${digest}`);
      }
      const source = await ingest.source();
      const now = clock.now();
      const info: BlobInfo = {
        digest,
        size: ingest.offset,
        allocated: await this.#allocatedBy(source),
        createdAt: now,
        updatedAt: now,
        labels: withoutEmptyLabels(labels),
      };
      await this.#placeAndRecord(source, info, along);
      this.#index.publish(info);
      // A copy: the bytes came as a part of a larger message, which would stay in memory with them.
      if (source instanceof Uint8Array) this.#cache.put(digest, new Uint8Array(source));
    });
    await this.#drop(ingest);
  }

  /**
   * A large file has more than its bytes take, where it is in pieces; it is synced, so none will be added. A
   * small one, which is still to be written, never has.
   */
  async #allocatedBy(source: Uint8Array | { path: string }): Promise<number | undefined> {
    if (source instanceof Uint8Array) return undefined;
    const { size, blocks } = await stat(source.path);
    const allocated = blocks * BLOCK_BYTES;
    return allocated === this.#inUnits(size) ? undefined : allocated;
  }

  #inUnits(size: number): number {
    return Math.ceil(size / this.#unitBytes) * this.#unitBytes;
  }

  /** Both or, on a full disk, neither; an ingest keeps its bytes for a retry. */
  async #placeAndRecord(
    source: Uint8Array | { path: string },
    info: BlobInfo,
    along: Along | undefined,
  ): Promise<void> {
    const { metadata, jobs } = this.#dependencies;
    const target = this.#layout.blob(info.digest);
    const bytes = source instanceof Uint8Array ? source : undefined;
    const blob = { source, target, temporary: this.#layout.temporary() };
    // Side by side, as start-up forgets a record without a blob and removes a blob without a record.
    const [placed, recorded] = await Promise.allSettled([
      jobs.placeBlob(blob, { sync: bytes === undefined }),
      metadata.update((tx) => {
        this.#index.record(tx, info, bytes);
        return along?.(tx);
      }),
    ]);
    if (placed.status === 'rejected') {
      if (recorded.status === 'fulfilled') {
        await metadata.update(
          (tx) => {
            this.#index.unrecord(tx, info.digest);
            recorded.value?.(tx);
          },
          { frees: true },
        );
      }
      throw placed.reason;
    }
    if (recorded.status === 'rejected') {
      await unlink(target);
      throw recorded.reason;
    }
  }

  /** Out of sight at once; the bytes go in a worker. */
  async #throwAway(path: string): Promise<void> {
    const { jobs, warn } = this.#dependencies;
    const trash = this.#layout.temporary();
    try {
      await rename(path, trash);
    } catch (error) {
      warn({ path, error }, 'could not be moved to the trash; start-up removes it');
      return;
    }
    jobs
      .removeTrees([trash], new AbortController().signal)
      .catch((error: unknown) => warn({ path: trash, error }, 'trash stays until start-up'));
  }

  async #recover(unknownBlobs: readonly string[]): Promise<void> {
    const { jobs } = this.#dependencies;
    const leftovers = (await readdir(this.#layout.trash)).map((name) =>
      join(this.#layout.trash, name),
    );
    if (leftovers.length > 0) await jobs.removeTrees(leftovers, new AbortController().signal);
    await recoverIngests({
      layout: this.#layout,
      jobs,
      unknownBlobs,
      keep: (ingest) => this.#ingests.set(ingest.ref, ingest),
    });
  }
}
