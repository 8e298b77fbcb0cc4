import { open, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { Level } from 'level';
import { messageOf, OpError } from '../base/errors.ts';
import { differsFromNote, leaveNote, removeNote } from './closing-note.ts';
import type { MetadataStore, UpdateOptions, WriteTx } from './metadata.ts';

type Operation =
  | { readonly type: 'put'; readonly key: string; readonly value: string }
  | { readonly type: 'del'; readonly key: string };

interface Waiting {
  readonly operations: readonly Operation[];
  readonly undo: readonly (() => void)[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Count of all records and the sum of their checksums, written with every batch. */
const SUMMARY = '!summary';
/** Removals and level's own compaction live on this when the disk is full. */
const RESERVE_BYTES = 8 << 20;
/** The reserve is only taken again when others keep this much beside it. */
const ROOM_BYTES = 2 * RESERVE_BYTES;
/** level's write buffer: what a start-up reads back from its log at most, and idle memory. */
const WRITE_BUFFER_BYTES = 1 << 20;

const isFull = (error: unknown): boolean =>
  /no space left on device|disk quota exceeded/i.test(`${messageOf(error)} ${causeOf(error)}`);
const causeOf = (error: unknown): string =>
  error instanceof Error && error.cause !== undefined ? messageOf(error.cause) : '';
const checksum = (key: string, value: string): number => crc32(value, crc32(key));

class Change implements WriteTx {
  readonly operations: Operation[] = [];
  readonly undo: (() => void)[] = [];

  put(key: string, value: unknown): void {
    this.operations.push({ type: 'put', key, value: JSON.stringify(value) });
  }
  delete(key: string): void {
    this.operations.push({ type: 'del', key });
  }
  onRollback(undo: () => void): void {
    this.undo.push(undo);
  }
}

export interface LevelStoreOptions {
  /** Folder of the level database; its parent exists. */
  readonly path: string;
  /** A preallocated file, on the same disk, that is given up when the disk is full. */
  readonly reserve: string;
  /** Whether this root was in use before: then a store without a summary is a damaged one. */
  readonly used: boolean;
  /** A batch could not be written and the disk is not full: nothing may be acknowledged any more. */
  readonly onFatal: (error: Error) => void;
}

/**
 * MetadataStore on one `level` database with group commit.
 *
 * A crash during a batch leaves all of it or nothing: it is one record of level's log. What level
 * cannot see (it drops damaged log records silently) the summary shows: every batch carries the count
 * and the checksum sum of all records, and open() compares them with what it reads.
 */
export class LevelStore implements MetadataStore {
  readonly #options: LevelStoreOptions;
  #level: Level<string, string>;
  #checksums = new Map<string, number>();
  #sum = 0;
  /** The summary of the last batch that is known to be on disk. */
  #durable = '';
  #waiting: Waiting[] = [];
  #writing = false;
  #full = false;
  #stopped = false;

  private constructor(options: LevelStoreOptions, level: Level<string, string>) {
    this.#options = options;
    this.#level = level;
  }

  /**
   * @throws OpError FailedPrecondition another process has it open; DataLoss it is damaged (nothing
   * is changed then); ResourceExhausted the disk is full
   */
  static async open(options: LevelStoreOptions): Promise<LevelStore> {
    const difference = await differsFromNote(options.path);
    if (difference !== undefined) throw damaged(options.path, difference);
    const store = new LevelStore(options, await openWithReserve(options));
    try {
      await store.#load();
      await removeNote(options.path);
      await store.#takeReserve();
    } catch (error) {
      await store.#level.close();
      throw error;
    }
    return store;
  }

  async *scan(prefix: string): AsyncIterable<readonly [string, unknown]> {
    for await (const [key, value] of this.#level.iterator({
      gte: prefix,
      lt: `${prefix}\u{10ffff}`,
    })) {
      yield [key, JSON.parse(value)];
    }
  }

  async update<T>(change: (tx: WriteTx) => T, options?: UpdateOptions): Promise<T> {
    if (this.#full && options?.frees !== true) await this.#admit();
    try {
      return await this.#enqueue(change);
    } catch (error) {
      if (!(error instanceof DiskFull) || options?.frees !== true) throw error;
      // The reserve has been given up since: what frees space goes through now, whatever was in its batch.
      return this.#enqueue(change);
    }
  }

  settled(): Promise<void> {
    if (!this.#writing && this.#waiting.length === 0) return Promise.resolve();
    return this.#enqueue(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stopped) return;
    await this.settled();
    this.#stopped = true;
    await this.#level.close();
    // Without room for it the next start is as after a crash.
    await leaveNote(this.#options.path).catch(() => undefined);
  }

  #enqueue<T>(change: (tx: WriteTx) => T): Promise<T> {
    const tx = new Change();
    let result: T;
    try {
      result = change(tx);
    } catch (error) {
      for (const undo of tx.undo.toReversed()) undo();
      throw error;
    }
    return new Promise((resolve, reject) => {
      const { operations, undo } = tx;
      this.#waiting.push({ operations, undo, resolve: () => resolve(result), reject });
      if (this.#writing) return;
      this.#writing = true;
      // Everything that this turn of the event loop brings shares the batch.
      setImmediate(() => void this.#writeBatches());
    });
  }

  async #writeBatches(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      const operations = batch.flatMap((waiting) => waiting.operations);
      try {
        if (operations.length > 0) {
          operations.push({ type: 'put', key: SUMMARY, value: this.#summarize(operations) });
          await this.#level.batch(operations, { sync: true });
          this.#durable = this.#summary();
        }
      } catch (error) {
        if (!isFull(error) || !(await this.#survivedFullDisk(batch))) return this.#stop(error);
        continue;
      }
      for (const waiting of batch) waiting.resolve();
    }
    this.#writing = false;
  }

  #summarize(operations: readonly Operation[]): string {
    for (const operation of operations) {
      this.#sum -= this.#checksums.get(operation.key) ?? 0;
      if (operation.type === 'del') {
        this.#checksums.delete(operation.key);
      } else {
        const value = checksum(operation.key, operation.value);
        this.#checksums.set(operation.key, value);
        this.#sum += value;
      }
    }
    return this.#summary();
  }

  #summary(): string {
    return JSON.stringify({ count: this.#checksums.size, sum: this.#sum });
  }

  /**
   * Level's log may end in half a record now, so it is opened anew; everything not yet acknowledged
   * is taken back, newest first, as later changes rest on earlier ones.
   */
  async #survivedFullDisk(batch: readonly Waiting[]): Promise<boolean> {
    this.#full = true;
    const failed = [...batch, ...this.#waiting];
    this.#waiting = [];
    for (const waiting of failed.toReversed()) for (const undo of waiting.undo.toReversed()) undo();
    try {
      await unlink(this.#options.reserve).catch(() => undefined);
      await this.#level.close();
      this.#level = await openLevel(this.#options.path);
      const before = this.#durable;
      await this.#load();
      // Written whole although it was said to have failed: a restart must sort that out.
      if (this.#durable !== before) return false;
    } catch {
      return false;
    }
    for (const waiting of failed) waiting.reject(new DiskFull(this.#options.path));
    return true;
  }

  /** While the disk is full only removals go on, until there is room for the reserve again. */
  async #admit(): Promise<void> {
    const { bavail, bsize } = await statfs(this.#options.path);
    if (bavail * bsize < ROOM_BYTES) throw new DiskFull(this.#options.path);
    this.#full = false;
    try {
      await this.#takeReserve();
    } catch (error) {
      // The disk is not full but broken: as with a batch.
      this.#stop(error);
      throw error;
    }
    if (this.#full) throw new DiskFull(this.#options.path);
  }

  /** Written, not only allocated: a hole or a delayed allocation would be no reserve. */
  async #takeReserve(): Promise<void> {
    try {
      await using file = await open(this.#options.reserve, 'r+').catch(() =>
        open(this.#options.reserve, 'w', 0o600),
      );
      if ((await file.stat()).blocks * 512 >= RESERVE_BYTES) return;
      await file.writeFile(Buffer.alloc(RESERVE_BYTES));
      await file.sync();
    } catch (error) {
      if (!isFull(error)) {
        throw new OpError(
          'Internal',
          `reserve ${this.#options.reserve} cannot be written: ${messageOf(error)}`,
          { cause: error },
        );
      }
      await unlink(this.#options.reserve).catch(() => undefined);
      this.#full = true;
    }
  }

  async #load(): Promise<void> {
    this.#checksums = new Map();
    this.#sum = 0;
    let summary: string | undefined;
    try {
      for await (const [key, value] of this.#level.iterator()) {
        if (key === SUMMARY) summary = value;
        else this.#summarize([{ type: 'put', key, value }]);
      }
    } catch (error) {
      throw damaged(this.#options.path, messageOf(error));
    }
    const found = this.#summary();
    if (summary === undefined && (this.#options.used || this.#checksums.size > 0)) {
      throw damaged(this.#options.path, 'its summary record is missing');
    }
    if (summary !== undefined && summary !== found) {
      throw damaged(this.#options.path, `summary ${summary} but the records give ${found}`);
    }
    if (summary === undefined) await this.#level.put(SUMMARY, found, { sync: true });
    this.#durable = found;
  }

  #stop(error: unknown): void {
    this.#stopped = true;
    this.#options.onFatal(
      new Error(
        `metadata store ${this.#options.path}: write failed: ${messageOf(error)} ${causeOf(error)}`,
      ),
    );
  }
}

class DiskFull extends OpError {
  constructor(path: string) {
    super(
      'ResourceExhausted',
      `no space left on device for ${path}: remove snapshots or blobs first`,
    );
  }
}

const damaged = (path: string, how: string): OpError =>
  new OpError(
    'DataLoss',
    `metadata store ${path} is damaged: ${how}; nothing was changed: restore it from a copy, or move the root away to start empty`,
  );

/** Opening writes a few files anew: on a full disk the reserve makes room for them. */
async function openWithReserve(options: LevelStoreOptions): Promise<Level<string, string>> {
  try {
    return await openLevel(options.path);
  } catch (error) {
    if (!(error instanceof DiskFull)) throw error;
    await unlink(options.reserve).catch(() => undefined);
    return openLevel(options.path);
  }
}

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
    const cause = causeOf(error) || messageOf(error);
    if (error instanceof Error && error.cause instanceof Error && 'code' in error.cause) {
      if (error.cause.code === 'LEVEL_LOCKED') {
        throw new OpError(
          'FailedPrecondition',
          `metadata store ${path} is in use by another ballast: stop it, or use another root`,
        );
      }
    }
    if (isFull(error)) throw new DiskFull(path);
    if (/corruption|not an sstable|checksum|CURRENT|manifest/i.test(cause))
      throw damaged(path, cause);
    throw new OpError('Internal', `metadata store ${path} cannot be opened: ${cause}`, {
      cause: error,
    });
  }
}

/** Where the daemon keeps the store and its reserve below its root. */
export const metadataPaths = (root: string): { path: string; reserve: string } => ({
  path: join(root, 'metadata'),
  reserve: join(root, 'metadata.reserve'),
});
