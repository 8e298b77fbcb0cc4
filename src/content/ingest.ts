import { hash } from 'node:crypto';
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Algorithm } from '../base/digest.ts';
import { quote } from '../base/errors.ts';
import { fromSystemError } from '../platform/linux/errno.ts';
import type { FileJobs, HashedFile, HexDigests } from '../platform/platform.ts';
import { SMALL_BLOB_BYTES } from './blob-cache.ts';
import type { Status } from './content.ts';

interface IngestRecord {
  readonly ref: string;
  readonly total: number;
  readonly started: string;
  readonly updated: string;
}

interface IngestStart {
  readonly ref: string;
  readonly folder: string;
  readonly total: number;
  readonly now: bigint;
}

const RECORD = 'ingest.json';
const DATA = 'data';

/**
 * The bytes held for one ref. Small ones stay in memory until Commit or until their writer leaves;
 * larger ones, and those left behind, are in a folder of their own.
 *
 * A crash leaves a folder with its record and however many bytes had been appended, or, right after
 * it was made, one without a record, which start-up removes. Ingests are resumable, not durable: a
 * power cut may take bytes that no Commit made a blob of.
 */
export class Ingest {
  readonly ref: string;
  readonly folder: string;
  readonly startedAt: bigint;
  updatedAt: bigint;
  /** What was announced when it began; 0: nothing. */
  readonly total: number;
  #offset = 0;
  #digests: HexDigests | undefined;
  /** While small: the bytes. */
  #chunks: Uint8Array[] = [];
  /** While a writer has it and it is not small. */
  #file: HashedFile | undefined;
  #onDisk = false;
  /** Hashed beside sha256, as the expected digest is one of these. */
  #also: Algorithm | undefined;
  readonly #jobs: FileJobs;

  constructor(start: IngestStart, jobs: FileJobs) {
    this.ref = start.ref;
    this.folder = start.folder;
    this.total = start.total;
    this.startedAt = start.now;
    this.updatedAt = start.now;
    this.#jobs = jobs;
  }

  /**
   * Reads what a previous daemon left; undefined when it is not a whole ingest, or when its data are a
   * blob by now. Blobs that don't count must have been removed before.
   */
  static async load(folder: string, jobs: FileJobs): Promise<Ingest | undefined> {
    try {
      const record: unknown = JSON.parse(await readFile(join(folder, RECORD), 'utf8'));
      const { size, mtimeNs, nlink } = await stat(join(folder, DATA), { bigint: true });
      if (!isRecord(record) || nlink > 1n) return undefined;
      const ingest = new Ingest(
        { ref: record.ref, folder, total: record.total, now: BigInt(record.started) },
        jobs,
      );
      const updated = BigInt(record.updated);
      ingest.updatedAt = mtimeNs > updated ? mtimeNs : updated;
      ingest.#offset = Number(size);
      ingest.#onDisk = true;
      return ingest;
    } catch {
      return undefined;
    }
  }

  get offset(): number {
    return this.#offset;
  }
  get status(): Status {
    const { ref, offset, total, startedAt, updatedAt } = this;
    return { ref, offset, total, startedAt, updatedAt };
  }
  get dataPath(): string {
    return join(this.folder, DATA);
  }

  /** A writer has it from here on: what is on disk is opened, and hashed again. */
  async resume(): Promise<void> {
    if (!this.#onDisk || this.#file !== undefined) return;
    const opened = await this.#jobs.openHashedFile(this.dataPath, this.#algorithms());
    this.#file = opened.file;
    this.#offset = opened.size;
    this.#digests = opened.digests;
  }

  /** Of all bytes held; an algorithm other than sha256 must have been named to `alsoHash` before. */
  digest(algorithm: Algorithm): string {
    if (this.#file === undefined) this.#digests ??= { sha256: hash('sha256', this.#bytes()) };
    const hex = this.#digests?.[algorithm];
    if (hex !== undefined) return hex;
    if (this.#file !== undefined)
      throw new Error(`ingest ${quote(this.ref)}: no ${algorithm} is kept`);
    return hash(algorithm, this.#bytes());
  }

  /** Another algorithm from here on; what is held is read again. */
  async alsoHash(algorithm: Algorithm): Promise<void> {
    if (algorithm === 'sha256' || this.#also === algorithm) return;
    this.#also = algorithm;
    // OpenSSL has no blake3, so its hash runs where the file is written.
    if (algorithm === 'blake3') await this.#spill();
    if (this.#file !== undefined && this.#digests?.[algorithm] === undefined) {
      this.#digests = await this.#file.addAlgorithm(algorithm);
    }
  }

  async truncate(now: bigint): Promise<void> {
    this.#chunks = [];
    this.#offset = 0;
    this.#digests = await this.#file?.truncate();
    this.updatedAt = now;
  }

  async append(data: Uint8Array, now: bigint): Promise<void> {
    // Taken now: the file takes over the memory, and the array is empty then.
    const { length } = data;
    if (length === 0) return;
    if (this.#file === undefined && this.#offset + length > SMALL_BLOB_BYTES) await this.#spill();
    if (this.#file === undefined) {
      this.#chunks.push(data);
      this.#digests = undefined;
    } else {
      this.#digests = await this.#file.append(data);
    }
    this.#offset += length;
    this.updatedAt = now;
  }

  /** What Commit places: the small bytes, or the path of the data once it is on disk. */
  async source(): Promise<Uint8Array | { path: string }> {
    if (this.#file === undefined) return this.#bytes();
    await this.#file.sync();
    return { path: this.dataPath };
  }

  /** The writer leaves: the bytes stay, and survive the daemon. */
  async leave(): Promise<void> {
    await this.#spill();
    await this.#writeRecord();
    await this.close();
  }

  /** Lets go of the file; what is on disk stays. */
  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.[Symbol.asyncDispose]();
  }

  /** Whether there is a folder to remove. */
  get onDisk(): boolean {
    return this.#onDisk;
  }

  #algorithms(): readonly Algorithm[] {
    return this.#also === undefined ? ['sha256'] : ['sha256', this.#also];
  }

  #bytes(): Uint8Array {
    const [only] = this.#chunks;
    if (this.#chunks.length === 1 && only !== undefined) return only;
    const bytes = Buffer.concat(this.#chunks);
    this.#chunks = [bytes];
    return bytes;
  }

  async #spill(): Promise<void> {
    if (this.#file !== undefined) return;
    this.#onDisk = true;
    try {
      await mkdir(this.folder, { mode: 0o700, recursive: true });
      await this.#writeRecord();
    } catch (error) {
      throw fromSystemError(error, `ingest ${quote(this.ref)}`);
    }
    const { file } = await this.#jobs.openHashedFile(this.dataPath, this.#algorithms());
    this.#file = file;
    const bytes = this.#bytes();
    this.#chunks = [];
    // A copy, as the file takes over the memory and small messages share theirs.
    this.#digests =
      bytes.length === 0 ? await file.truncate() : await file.append(Uint8Array.from(bytes));
  }

  /** Replaced whole, so that a crash leaves the old record or the new one. */
  async #writeRecord(): Promise<void> {
    const record: IngestRecord = {
      ref: this.ref,
      total: this.total,
      started: String(this.startedAt),
      updated: String(this.updatedAt),
    };
    const path = join(this.folder, RECORD);
    await writeFile(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
    await rename(`${path}.new`, path);
  }
}

function isRecord(value: unknown): value is IngestRecord {
  if (typeof value !== 'object' || value === null) return false;
  const { ref, total, started, updated } = value as Partial<Record<keyof IngestRecord, unknown>>;
  return (
    typeof ref === 'string' &&
    typeof total === 'number' &&
    typeof started === 'string' &&
    typeof updated === 'string'
  );
}
