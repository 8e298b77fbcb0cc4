import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ALGORITHMS, parseDigest } from '../base/digest.ts';
import type { FlushedBytes, MetadataStore } from '../metadata/metadata.ts';
import type { FileJobs } from '../platform/platform.ts';
import { digestOfKey, type BlobIndex } from './blob-index.ts';
import { Ingest } from './ingest.ts';
import { ContentLayout } from './layout.ts';

/** Small blobs whose files were not synced yet, with the metadata store keeping their bytes. */
export class UnsyncedBlobs implements FlushedBytes {
  readonly #layout: ContentLayout;
  readonly #jobs: FileJobs;

  constructor(root: string, jobs: FileJobs) {
    this.#layout = new ContentLayout(root);
    this.#jobs = jobs;
  }

  flush(): Promise<void> {
    return this.#jobs.syncFileSystem(this.#layout.blobs);
  }

  /** Also those whose files are there: what is in them is not known. */
  async restore(kept: ReadonlyMap<string, Uint8Array>): Promise<void> {
    // Of a start-up that was cut off.
    await this.#jobs.removeTrees([this.#layout.trash], new AbortController().signal);
    await this.#layout.make();
    const placing = Array.from(kept, ([key, source]) => {
      const target = this.#layout.blob(digestOfKey(key));
      const temporary = this.#layout.temporary();
      return this.#jobs.placeBlob({ source, target, temporary }, { sync: true });
    });
    await Promise.all(placing);
  }
}

interface BlobComparison {
  readonly layout: ContentLayout;
  readonly index: BlobIndex;
  readonly metadata: MetadataStore;
  readonly warn: (fields: Record<string, unknown>, message: string) => void;
}

/**
 * Start-up, before anything is answered: a record without its blob is of an unfinished Commit, or the
 * blob was taken away. It is forgotten, with a warning.
 * @returns the paths of blobs without a record: they were not acknowledged, or were deleted
 */
export async function compareBlobs(comparison: BlobComparison): Promise<readonly string[]> {
  const { layout, index, metadata, warn } = comparison;
  const missing = new Set<string>();
  for (const { digest } of index.all()) missing.add(digest);
  const unknown: string[] = [];
  for (const algorithm of ALGORITHMS) {
    for (const name of await readdir(join(layout.blobs, algorithm))) {
      if (!missing.delete(`${algorithm}:${name}`))
        unknown.push(join(layout.blobs, algorithm, name));
    }
  }
  for (const digest of missing) {
    warn(
      { digest },
      'blob is not on the disk (its Commit did not finish, or it was taken away): forgotten, it can be fetched again',
    );
    await metadata.update((tx) => index.remove(tx, index.get(parseDigest(digest))), {
      frees: true,
    });
  }
  return unknown;
}

interface IngestRecovery {
  readonly layout: ContentLayout;
  readonly jobs: FileJobs;
  /** As compareBlobs found them. */
  readonly unknownBlobs: readonly string[];
  readonly keep: (ingest: Ingest) => void;
}

/**
 * Start-up: blobs without a record go. Whole ingests are kept, also those whose Commit the crash
 * interrupted; one that is a blob by now goes.
 */
export async function recoverIngests(recovery: IngestRecovery): Promise<void> {
  const { layout, jobs, unknownBlobs, keep } = recovery;
  const never = new AbortController().signal;
  if (unknownBlobs.length > 0) await jobs.removeTrees(unknownBlobs, never);
  const broken: string[] = [];
  for (const name of await readdir(layout.ingests)) {
    const folder = join(layout.ingests, name);
    const ingest = await Ingest.load(folder, jobs);
    if (ingest !== undefined && ingest.folder === layout.ingest(ingest.ref)) keep(ingest);
    else broken.push(folder);
  }
  if (broken.length > 0) await jobs.removeTrees(broken, never);
}
