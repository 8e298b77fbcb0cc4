import { crc32 } from 'node:zlib';
import { Level } from 'level';
import { messageOf, OpError } from '../base/errors.ts';
import { DiskFull, isFull, systemMessageOf } from './disk-full.ts';

/** The last value by key, null where it was deleted. */
export type Changes = ReadonlyMap<string, string | null>;

/** Count of all records, the sum of their checksums, and the last journal record that is in here. */
interface Summary {
  readonly count: number;
  readonly sum: number;
  readonly journal: number;
}

/** Written with every batch. */
const SUMMARY = '!summary';
/** level's write buffer: what a start-up reads back from its log at most, and idle memory. */
const WRITE_BUFFER_BYTES = 1 << 20;

/** So many changes go in one of level's batches: about 2 ms of this thread. */
const CHANGES_PER_BATCH = 1000;

const checksum = (key: string, value: string): number => crc32(value, crc32(key));

/**
 * All records but what the journal holds, in `level`.
 *
 * A crash during a batch leaves all of it or nothing: it is one record of level's log. What level
 * cannot see (it drops damaged log records silently) the summary shows: every batch carries the count
 * and the checksum sum of all records, and open() compares them with what it reads.
 */
export class Database implements AsyncDisposable {
  readonly #path: string;
  #level: Level<string, string>;
  readonly #checksums = new Map<string, number>();
  #sum = 0;
  #journal = 0;

  private constructor(path: string, level: Level<string, string>) {
    this.#path = path;
    this.#level = level;
  }

  /**
   * @param used whether this root was in use before: then a database without a summary is a damaged one
   * @throws OpError FailedPrecondition another process has it open; DataLoss it is damaged (nothing is
   * changed then); ResourceExhausted the disk is full
   */
  static async open(path: string, used: boolean): Promise<Database> {
    const database = new Database(path, await openLevel(path));
    try {
      await database.#load(used);
      return database;
    } catch (error) {
      await database.#level.close();
      throw error;
    }
  }

  /** Sequence of the last journal record whose changes are in here. */
  get journal(): number {
    return this.#journal;
  }

  async *scan(prefix: string): AsyncIterable<readonly [string, unknown]> {
    const range = { gte: prefix, lt: `${prefix}\u{10ffff}` };
    for await (const [key, value] of this.#level.iterator(range)) yield [key, JSON.parse(value)];
  }

  /**
   * Takes over what the journal holds up to record `journal`; on disk when it resolves. May be called
   * again with the same changes after it failed.
   *
   * It goes in parts, of which the last one tells how far the journal was taken over. A crash between
   * leaves the journal as it was: what start-up takes over from it again is there in part already.
   * @throws OpError ResourceExhausted when the disk is full
   */
  async settle(changes: Changes, journal: number): Promise<void> {
    let part: [string, string | null][] = [];
    for (const change of changes) {
      if (part.length === CHANGES_PER_BATCH) {
        await this.#write(part);
        part = [];
      }
      part.push(change);
    }
    await this.#write(part, journal);
    this.#journal = journal;
  }

  /** @param journal the record up to which the journal is taken over once these changes are */
  async #write(
    changes: readonly (readonly [string, string | null])[],
    journal = this.#journal,
  ): Promise<void> {
    const batch = changes.map(([key, value]) =>
      value === null ? { type: 'del' as const, key } : { type: 'put' as const, key, value },
    );
    for (const [key, value] of changes) this.#count(key, value);
    batch.push({ type: 'put', key: SUMMARY, value: JSON.stringify(this.#summary(journal)) });
    if (this.#level.status !== 'open') this.#level = await openLevel(this.#path);
    try {
      await this.#level.batch(batch, { sync: true });
    } catch (error) {
      if (!isFull(error)) throw error;
      // Its log may end in half a record now; opened anew, once there is room, it starts another.
      await this.#level.close();
      throw new DiskFull(this.#path);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#level.close();
  }

  #count(key: string, value: string | null): void {
    this.#sum -= this.#checksums.get(key) ?? 0;
    if (value === null) {
      this.#checksums.delete(key);
      return;
    }
    const sum = checksum(key, value);
    this.#checksums.set(key, sum);
    this.#sum += sum;
  }

  #summary(journal: number): Summary {
    return { count: this.#checksums.size, sum: this.#sum, journal };
  }

  async #load(used: boolean): Promise<void> {
    let noted: string | undefined;
    try {
      for await (const [key, value] of this.#level.iterator()) {
        if (key === SUMMARY) noted = value;
        else this.#count(key, value);
      }
    } catch (error) {
      throw damaged(this.#path, messageOf(error));
    }
    if (noted === undefined) {
      if (used || this.#checksums.size > 0) {
        throw damaged(this.#path, 'its summary record is missing');
      }
      return this.settle(new Map(), 0);
    }
    // Guarded by level's own checksum; format 1 had no journal.
    const { count, sum, journal = 0 } = JSON.parse(noted) as Partial<Summary>;
    if (count !== this.#checksums.size || sum !== this.#sum) {
      const found = JSON.stringify(this.#summary(journal));
      throw damaged(this.#path, `summary ${noted} but the records give ${found}`);
    }
    this.#journal = journal;
  }
}

export const damaged = (path: string, how: string): OpError =>
  new OpError(
    'DataLoss',
    `metadata store ${path} is damaged: ${how}; nothing was changed: restore it from a copy, or move the root away to start empty`,
  );

async function openLevel(path: string): Promise<Level<string, string>> {
  const level = new Level<string, string>(path, {
    keyEncoding: 'utf8',
    valueEncoding: 'utf8',
    writeBufferSize: WRITE_BUFFER_BYTES,
  });
  try {
    await level.open();
    return level;
  } catch (error) {
    if (error instanceof Error && error.cause instanceof Error && 'code' in error.cause) {
      if (error.cause.code === 'LEVEL_LOCKED') {
        throw new OpError(
          'FailedPrecondition',
          `metadata store ${path} is in use by another ballast: stop it, or use another root`,
        );
      }
    }
    if (isFull(error)) throw new DiskFull(path);
    const cause = systemMessageOf(error);
    if (/corruption|not an sstable|checksum|CURRENT|manifest/i.test(cause))
      throw damaged(path, cause);
    throw new OpError('Internal', `metadata store ${path} cannot be opened: ${cause}`, {
      cause: error,
    });
  }
}
