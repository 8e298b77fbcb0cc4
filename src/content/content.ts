import type { RequestContext } from '../base/context.ts';
import type { Digest } from '../base/digest.ts';
import type { Labels } from '../base/labels.ts';
import type { Along } from '../metadata/metadata.ts';

export interface Info {
  readonly digest: Digest;
  readonly size: number;
  /** Nanoseconds since the epoch. */
  readonly createdAt: bigint;
  readonly updatedAt: bigint;
  readonly labels: Labels;
}

/** An ingest: bytes held for a ref until they are committed as a blob. */
export interface Status {
  readonly ref: string;
  readonly offset: number;
  /** 0: not announced. */
  readonly total: number;
  readonly startedAt: bigint;
  readonly updatedAt: bigint;
}

export interface WriterStatus extends Status {
  /** Of the bytes held so far. */
  readonly digest: Digest;
}

/** Where a content store keeps what it has. */
export interface ContentFolders {
  /** One for each algorithm. */
  readonly blobs: readonly string[];
  readonly ingests: string;
  readonly trash: string;
}

/** A blob as it lies on the disk. */
export interface StoredBlob {
  readonly digest: Digest;
  readonly path: string;
  /** Allocated, as du(1) counts. */
  readonly bytes: number;
}

/** An ingest that is not in memory alone. */
export interface StoredIngest {
  readonly ref: string;
  readonly path: string;
}

/** What any message of a write stream may announce; the last one wins. */
export interface Announced {
  readonly total?: number;
  readonly expected?: Digest;
  /** The bytes are taken though the store has `expected`: whoever writes them does not know of it. */
  readonly anew?: boolean;
}

/**
 * The one writer of a ref. Disposing it keeps the bytes for a later writer and frees the ref; after an
 * error from any method it can only be disposed. Calls must not overlap.
 */
export interface Writer extends AsyncDisposable {
  status(): WriterStatus;
  /**
   * Remembers what a message announced.
   * @throws AlreadyExists when `expected` is in the store: the ingest is gone then
   */
  announce(announced: Announced): Promise<void>;
  /**
   * Appends. Offset 0 drops what was held first; any other must be the present end. The writer owns
   * `data` from here on.
   * @throws OutOfRange; ResourceExhausted
   */
  write(offset: number, data: Uint8Array): Promise<void>;
  /**
   * Makes the bytes a blob; it is on disk, verified and visible when this resolves with its digest (of
   * the algorithm that `expected` named, else sha256).
   * @param along a decorator's own records, in the batch of the blob's
   * @throws FailedPrecondition size or digest differ from the announced (the ingest stays); AlreadyExists (it goes)
   */
  commit(labels: Labels, along?: Along): Promise<Digest>;
}

/** Blobs by digest and ingests by ref. Refs are arbitrary text and never part of a path. */
export interface ContentStore extends AsyncDisposable {
  /** @throws NotFound */
  info(ctx: RequestContext, digest: Digest): Promise<Info>;
  /** Labels only, as Snapshotter.update. @throws NotFound; InvalidArgument */
  update(
    ctx: RequestContext,
    change: { readonly digest: Digest; readonly labels: Labels },
    fieldPaths: readonly string[],
  ): Promise<Info>;
  /** @throws InvalidArgument for a filter */
  walk(ctx: RequestContext, filters: readonly string[]): AsyncIterable<Info>;
  /** Readers under way keep their bytes. A blob that is not there is no error: a collector would stop at it. */
  delete(ctx: RequestContext, digest: Digest): Promise<void>;
  /**
   * The bytes from `offset` on: `size` of them, or all to the end when it is 0 or reaches beyond. Reads
   * ahead of its consumer by one chunk at most.
   * @throws NotFound; OutOfRange when offset is beyond the end
   */
  read(
    ctx: RequestContext,
    digest: Digest,
    offset: number,
    size: number,
  ): AsyncIterable<Uint8Array>;
  /** @throws NotFound */
  status(ctx: RequestContext, ref: string): Promise<Status>;
  /** @throws InvalidArgument for a filter */
  statuses(ctx: RequestContext, filters: readonly string[]): Promise<readonly Status[]>;
  /** Drops an ingest. One that is not there is no error. @throws Unavailable while a writer has it */
  abort(ctx: RequestContext, ref: string): Promise<void>;
  /**
   * Locks the ref and resumes its ingest or starts one.
   * @throws Unavailable ref locked; AlreadyExists `expected` is in the store, an ingest stays as it was; InvalidArgument no ref
   */
  writer(ctx: RequestContext, ref: string, announced: Announced): Promise<Writer>;
}
