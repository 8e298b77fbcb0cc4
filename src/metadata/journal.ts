import { constants, write } from 'node:fs';
import { open, readFile, rename, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import { setNoCopyOnWrite } from '../platform/linux/inode-flags.ts';
import { isFull } from './disk-full.ts';

/** A put; with null a delete; bytes are only kept here and never reach the database. */
export type Operation = readonly [key: string, value: string | null | Uint8Array];

export interface JournalRecord {
  /** One more than the record before. */
  readonly sequence: number;
  readonly operations: readonly Operation[];
}

/** The file has two halves: one is written while what the other holds moves into the database. */
const HALF_BYTES = 2 << 20;
/**
 * A record: magic, CRC-32 of all that follows, sequence (a double), length of the rest; then for each
 * operation the lengths of key and value, the kind of value, and both. Numbers are little-endian.
 */
const HEADER_BYTES = 20;
const MAGIC = Buffer.from([0xff, 0x62, 0x6a, 0x31]);
const OPERATION_BYTES = 9;
const KIND = { text: 0, deleted: 1, bytes: 2 } as const;

/** What the operations of one record may take together. */
export const OPERATIONS_BYTES_MAX = HALF_BYTES - HEADER_BYTES;

/**
 * The write-ahead log: a file of constant size, filled with zeros beforehand and written over in
 * place, so that a synced write changes nothing but data. The file system need not commit its own
 * journal for it, which on a disk that syncs in 1 ms halves the price (docs/performance.md).
 *
 * A crash while a record is written leaves it whole or with a wrong checksum; it was not acknowledged
 * either way. Records before it share a block with it at most, and are written again as they were.
 */
export class Journal implements AsyncDisposable {
  readonly #file: FileHandle;
  #half = 0;
  #used = 0;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  /** Opens the journal for writing; what it held must be in the database by now. */
  static async open(path: string): Promise<Journal> {
    return new Journal(await open(path, constants.O_RDWR | constants.O_DSYNC));
  }

  /** Makes the file, whole or not at all. */
  static async create(path: string): Promise<void> {
    {
      await using file = await open(`${path}.new`, 'w', 0o600);
      // On btrfs "in place" has to be asked for: a copy would need room on a full disk.
      setNoCopyOnWrite(file.fd);
      await file.writeFile(Buffer.alloc(2 * HALF_BYTES));
      await file.sync();
    }
    await rename(`${path}.new`, path);
    await using folder = await open(dirname(path));
    await folder.sync();
  }

  /** All whole records, by sequence; older ones that later records left over among them. */
  static async read(path: string): Promise<readonly JournalRecord[]> {
    const bytes = await readFile(path);
    const records: JournalRecord[] = [];
    for (let at = bytes.indexOf(MAGIC); at >= 0; at = bytes.indexOf(MAGIC, at + 1)) {
      const record = decode(bytes.subarray(at));
      if (record !== undefined) records.push(record);
    }
    return records.toSorted((a, b) => a.sequence - b.sequence);
  }

  hasRoomFor(record: Uint8Array): boolean {
    return this.#used + record.length <= HALF_BYTES;
  }

  /** Goes on in the other half, whose records must be in the database by now. */
  turn(): void {
    this.#half = 1 - this.#half;
    this.#used = 0;
  }

  /**
   * Resolves when the record is on disk. One write at a time.
   * @throws ErrnoException ENOSPC or EDQUOT where the file system copies on write: nothing of the
   * record is left then
   */
  async append(record: Uint8Array): Promise<void> {
    const position = this.#half * HALF_BYTES + this.#used;
    try {
      await writeAll(this.#file.fd, record, position);
    } catch (error) {
      // What was refused must not be found by a later start, wherever the next record goes.
      if (isFull(error)) await writeAll(this.#file.fd, Buffer.alloc(HEADER_BYTES), position);
      throw error;
    }
    this.#used += record.length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}

/** What the operation takes in a record. */
export function bytesOf([key, value]: Operation): number {
  return OPERATION_BYTES + Buffer.byteLength(key) + (value === null ? 0 : Buffer.byteLength(value));
}

export function encodeRecord({ sequence, operations }: JournalRecord): Uint8Array {
  const length = operations.reduce((sum, operation) => sum + bytesOf(operation), 0);
  const record = Buffer.allocUnsafe(HEADER_BYTES + length);
  MAGIC.copy(record);
  record.writeDoubleLE(sequence, 8);
  record.writeUInt32LE(length, 16);
  let at = HEADER_BYTES;
  for (const operation of operations) at = encodeOperation(operation, record, at);
  record.writeUInt32LE(crc32(record.subarray(8)), 4);
  return record;
}

/** @returns where it ends */
function encodeOperation([key, value]: Operation, record: Buffer, at: number): number {
  const keyBytes = record.write(key, at + OPERATION_BYTES);
  const valueAt = at + OPERATION_BYTES + keyBytes;
  let valueBytes = 0;
  if (typeof value === 'string') {
    valueBytes = record.write(value, valueAt);
    record[at + 8] = KIND.text;
  } else if (value === null) {
    record[at + 8] = KIND.deleted;
  } else {
    valueBytes = value.length;
    record.set(value, valueAt);
    record[at + 8] = KIND.bytes;
  }
  record.writeUInt32LE(keyBytes, at);
  record.writeUInt32LE(valueBytes, at + 4);
  return valueAt + valueBytes;
}

/** @returns undefined when the magic is not that of a whole record */
function decode(bytes: Buffer): JournalRecord | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const end = HEADER_BYTES + bytes.readUInt32LE(16);
  if (end > bytes.length || crc32(bytes.subarray(8, end)) !== bytes.readUInt32LE(4)) {
    return undefined;
  }
  const operations: Operation[] = [];
  for (let at = HEADER_BYTES; at < end;) {
    const keyAt = at + OPERATION_BYTES;
    const valueAt = keyAt + bytes.readUInt32LE(at);
    const kind = bytes[at + 8];
    const key = bytes.toString('utf8', keyAt, valueAt);
    at = valueAt + bytes.readUInt32LE(at + 4);
    if (kind === KIND.deleted) operations.push([key, null]);
    else if (kind === KIND.bytes)
      operations.push([key, Uint8Array.from(bytes.subarray(valueAt, at))]);
    else operations.push([key, bytes.toString('utf8', valueAt, at)]);
  }
  return { sequence: bytes.readDoubleLE(8), operations };
}

/** fs.write's callback form: this is on the path of every change, and its promise costs a third more. */
function writeAll(fd: number, bytes: Uint8Array, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const step = (written: number): void => {
      write(fd, bytes, written, bytes.length - written, position + written, (error, count) => {
        if (error !== null) reject(error);
        else if (written + count < bytes.length) step(written + count);
        else resolve();
      });
    };
    step(0);
  });
}
