import { hash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ALGORITHMS, splitDigest, type Digest } from '../base/digest.ts';
import type { ContentFolders } from './content.ts';

/**
 * Where things are below the content root:
 *   blobs/ALGORITHM/HEX   whole, verified blobs, and nothing else: also an OCI layout's blob folder
 *   ingests/HASH/         one folder an ingest, named by the sha256 of its ref: `ingest.json`, `data`
 *   trash/                what is on its way out; emptied at start-up
 */
export class ContentLayout {
  readonly root: string;
  readonly blobs: string;
  readonly ingests: string;
  readonly trash: string;
  #temporaries = 0;

  constructor(root: string) {
    this.root = root;
    this.blobs = join(root, 'blobs');
    this.ingests = join(root, 'ingests');
    this.trash = join(root, 'trash');
  }
  /** Makes the folders, where they are not there yet. */
  async make(): Promise<void> {
    for (const folder of [this.root, this.ingests, this.trash, ...this.folders.blobs]) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
    }
  }
  get folders(): ContentFolders {
    const { ingests, trash } = this;
    return { blobs: ALGORITHMS.map((algorithm) => join(this.blobs, algorithm)), ingests, trash };
  }
  /** Asked for all blobs at once: joining path by path takes its time. */
  blob(digest: Digest): string {
    const { algorithm, hex } = splitDigest(digest);
    return `${this.blobs}/${algorithm}/${hex}`;
  }
  /** Refs are arbitrary text, so only their hash is ever part of a path. */
  ingest(ref: string): string {
    return join(this.ingests, hash('sha256', ref));
  }
  /** A name that nothing has, on the same file system as blobs and ingests. */
  temporary(): string {
    return join(this.trash, `${process.pid}-${++this.#temporaries}`);
  }
}
