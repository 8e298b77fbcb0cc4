import { notFound } from '../base/errors.ts';
import { parseDigest, type Digest } from '../base/digest.ts';
import { labelsFromPairs, type Labels } from '../base/labels.ts';
import type { MetadataStore, WriteTx } from '../metadata/metadata.ts';
import type { Info } from './content.ts';

const PREFIX = 'blob/';

interface BlobRecord {
  readonly size: number;
  readonly allocated?: number;
  readonly created: string;
  readonly updated: string;
  readonly labels?: readonly (readonly [string, string])[];
}

/** Of the record with this key. @throws OpError InvalidArgument for what is no blob's */
export const digestOfKey = (key: string): Digest => parseDigest(key.slice(PREFIX.length));

/** What is known of a blob, and no decorator's business. */
export interface BlobInfo extends Info {
  /** Bytes; undefined where they are those of its size, in whole blocks. */
  readonly allocated: number | undefined;
}

/** What is known of every blob, in memory, and its records in the metadata store. */
export class BlobIndex {
  readonly #infos = new Map<Digest, BlobInfo>();

  static async load(metadata: MetadataStore): Promise<BlobIndex> {
    const index = new BlobIndex();
    for await (const [key, value] of metadata.scan(PREFIX)) {
      // Our own record, guarded by the store's checksums: not parsed again.
      const record = value as BlobRecord;
      const digest = digestOfKey(key);
      index.#infos.set(digest, {
        digest,
        size: record.size,
        allocated: record.allocated,
        createdAt: BigInt(record.created),
        updatedAt: BigInt(record.updated),
        labels: labelsFromPairs(record.labels),
      });
    }
    return index;
  }

  has(digest: Digest): boolean {
    return this.#infos.has(digest);
  }
  /** @throws OpError NotFound */
  get(digest: Digest): BlobInfo {
    const info = this.#infos.get(digest);
    if (info === undefined) throw notFound(`content ${digest}`);
    return info;
  }
  all(): IterableIterator<BlobInfo> {
    return this.#infos.values();
  }

  /**
   * Writes the record of a blob that is still being placed: nobody sees it before `publish`.
   * @param bytes the blob, where its file is not synced
   */
  record(tx: WriteTx, info: BlobInfo, bytes: Uint8Array | undefined): void {
    this.#put(tx, info);
    if (bytes !== undefined) tx.keep(PREFIX + info.digest, bytes);
  }
  /** The blob and its record are on disk. */
  publish(info: BlobInfo): void {
    this.#infos.set(info.digest, info);
  }
  /** Takes back the record of a blob that could not be placed. */
  unrecord(tx: WriteTx, digest: Digest): void {
    tx.delete(PREFIX + digest);
  }

  relabel(tx: WriteTx, info: BlobInfo, labels: Labels, updatedAt: bigint): BlobInfo {
    const changed = { ...info, labels, updatedAt };
    this.#infos.set(info.digest, changed);
    this.#put(tx, changed);
    tx.onRollback(() => this.#infos.set(info.digest, info));
    return changed;
  }

  remove(tx: WriteTx, info: BlobInfo): void {
    this.#infos.delete(info.digest);
    tx.delete(PREFIX + info.digest);
    tx.onRollback(() => this.#infos.set(info.digest, info));
  }

  #put(tx: WriteTx, info: BlobInfo): void {
    const record: BlobRecord = {
      size: info.size,
      ...(info.allocated === undefined ? {} : { allocated: info.allocated }),
      created: String(info.createdAt),
      updated: String(info.updatedAt),
      ...(info.labels.size === 0 ? {} : { labels: [...info.labels] }),
    };
    tx.put(PREFIX + info.digest, record);
  }
}
