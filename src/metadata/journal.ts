import { randomFillSync } from 'node:crypto';
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

/**
 * The file begins with this many random bytes, and so does each record: what a client stores may look
 * like a record, but cannot know them.
 */
const ID_BYTES = 16;
/** Behind the id are two halves: one is written while what the other holds moves into the database. */
const HALF_BYTES = 2 << 20;
const FILE_BYTES = ID_BYTES + 2 * HALF_BYTES;
/**
 * A record: the id, CRC-32 of all that follows, sequence (a double), length of the rest; then for each
 * operation the lengths of key and value, the kind of value, and both. Numbers are little-endian.
 */
const AT = { checksum: ID_BYTES, sequence: ID_BYTES + 4, length: ID_BYTES + 12 } as const;
const HEADER_BYTES = ID_BYTES + 16;
const OPERATION_BYTES = 9;
const KIND = { text: 0, deleted: 1, bytes: 2 } as const;

/** What the operations of one record may take together. */
export const OPERATIONS_BYTES_MAX = HALF_BYTES - HEADER_BYTES;

/**
 * The write-ahead log: a file of constant size, filled beforehand and written over in place, so that
 * a synced write changes nothing but data. The file system need not commit its own journal for it,
 * which on a disk that syncs in 1 ms halves the price (docs/performance.md).
 *
 * A crash while a record is written leaves it whole or with a wrong checksum; it was not acknowledged
 * either way. Records before it share a block with it at most, and are written again as they were.
 */
export class Journal implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #id: Uint8Array;
  #half = 0;
  #used = 0;

  private constructor(file: FileHandle, id: Uint8Array) {
    this.#file = file;
    this.#id = id;
  }

  /** Opens the journal for writing; what it held must be in the database by now. */
  static async open(path: string): Promise<Journal> {
    const file = await open(path, constants.O_RDWR | constants.O_DSYNC);
    const id = new Uint8Array(ID_BYTES);
    await file.read(id, 0, ID_BYTES, 0);
    return new Journal(file, id);
  }

  /** Makes the file, whole or not at all. */
  static async create(path: string): Promise<void> {
    {
      await using file = await open(`${path}.new`, 'w', 0o600);
      // On btrfs "in place" has to be asked for: a copy would need room on a full disk.
      setNoCopyOnWrite(file.fd);
      const bytes = Buffer.alloc(FILE_BYTES);
      randomFillSync(bytes, 0, ID_BYTES);
      await file.writeFile(bytes);
      await file.sync();
    }
    await rename(`${path}.new`, path);
    await using folder = await open(dirname(path));
    await folder.sync();
  }

  /**
   * All whole records, by sequence; older ones that later records left over among them.
   * @returns undefined for a file that is no journal, or has lost its beginning or its end
   */
  static async read(path: string): Promise<readonly JournalRecord[] | undefined> {
    const bytes = await readFile(path);
    const id = bytes.subarray(0, ID_BYTES);
    if (bytes.length !== FILE_BYTES || id.every((byte) => byte === 0)) return undefined;
    const records: JournalRecord[] = [];
    for (let at = bytes.indexOf(id, ID_BYTES); at >= 0; at = bytes.indexOf(id, at + 1)) {
      const record = decode(bytes.subarray(at));
      if (record !== undefined) records.push(record);
    }
    return records.toSorted((a, b) => a.sequence - b.sequence);
  }

  /** @param bytes of the record's operations */
  hasRoomFor(bytes: number): boolean {
    return this.#used + HEADER_BYTES + bytes <= HALF_BYTES;
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
  async append(record: JournalRecord): Promise<void> {
    const bytes = encode(record, this.#id);
    const position = ID_BYTES + this.#half * HALF_BYTES + this.#used;
    try {
      await writeAll(this.#file.fd, bytes, position);
    } catch (error) {
      // What was refused must not be found by a later start, wherever the next record goes.
      if (isFull(error)) await writeAll(this.#file.fd, Buffer.alloc(HEADER_BYTES), position);
      throw error;
    }
    this.#used += bytes.length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}

/** What the operations take in a record. */
export function bytesOf(operations: readonly Operation[]): number {
  return operations.reduce(
    (sum, [key, value]) =>
      sum +
      OPERATION_BYTES +
      Buffer.byteLength(key) +
      (value === null ? 0 : Buffer.byteLength(value)),
    0,
  );
}

function encode({ sequence, operations }: JournalRecord, id: Uint8Array): Uint8Array {
  const length = bytesOf(operations);
  const record = Buffer.allocUnsafe(HEADER_BYTES + length);
  record.set(id);
  record.writeDoubleLE(sequence, AT.sequence);
  record.writeUInt32LE(length, AT.length);
  let at = HEADER_BYTES;
  for (const operation of operations) at = encodeOperation(operation, record, at);
  record.writeUInt32LE(crc32(record.subarray(AT.sequence)), AT.checksum);
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

/** @returns undefined when the id does not begin a whole record */
function decode(bytes: Buffer): JournalRecord | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const end = HEADER_BYTES + bytes.readUInt32LE(AT.length);
  if (end > bytes.length) return undefined;
  if (crc32(bytes.subarray(AT.sequence, end)) !== bytes.readUInt32LE(AT.checksum)) return undefined;
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
  return { sequence: bytes.readDoubleLE(AT.sequence), operations };
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
