import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ALGORITHMS, parseDigest } from '../base/digest.ts';
import type { MetadataStore } from '../metadata/metadata.ts';
import type { FileJobs } from '../platform/platform.ts';
import type { BlobIndex } from './blob-index.ts';
import { Ingest } from './ingest.ts';
import type { ContentLayout } from './layout.ts';

export interface ContentRecovery {
  readonly layout: ContentLayout;
  readonly index: BlobIndex;
  readonly jobs: FileJobs;
  readonly metadata: MetadataStore;
  readonly warn: (fields: Record<string, unknown>, message: string) => void;
  readonly keep: (ingest: Ingest) => void;
}

/**
 * Start-up: blobs without a record were not acknowledged, or were deleted: they go. A record without
 * its blob is of an unfinished Commit, or the blob was taken away: it is forgotten, with a warning. Whole ingests are kept,
 * also those whose Commit the crash interrupted; one that is a blob by now goes.
 */
export async function recoverContent(recovery: ContentRecovery): Promise<void> {
  const { layout, index, jobs, metadata, warn, keep } = recovery;
  const never = new AbortController().signal;
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
  if (unknown.length > 0) await jobs.removeTrees(unknown.splice(0), never);
  for (const name of await readdir(layout.ingests)) {
    const folder = join(layout.ingests, name);
    const ingest = await Ingest.load(folder, jobs);
    if (ingest !== undefined && ingest.folder === layout.ingest(ingest.ref)) keep(ingest);
    else unknown.push(folder);
  }
  if (unknown.length > 0) await jobs.removeTrees(unknown, never);
}
