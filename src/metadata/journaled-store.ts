import { join } from 'node:path';
import { pathExists } from 'fs-extra/esm';
import { OpError } from '../base/errors.ts';
import { differsFromNote, leaveNote, removeNote } from './closing-note.ts';
import { damaged, Database } from './database.ts';
import { DiskFull, isFull, systemMessageOf } from './disk-full.ts';
import { bytesOf, Journal, OPERATIONS_BYTES_MAX, type Operation } from './journal.ts';
import type { FlushedBytes, MetadataStore, UpdateOptions, WriteTx } from './metadata.ts';
import { Reserve } from './reserve.ts';

/** With so many changed keys a half of the journal begins to move into the database. */
const CHANGES_MAX = 500;

interface Waiting {
  readonly operations: readonly Operation[];
  /** Of the operations, in a record. */
  readonly bytes: number;
  readonly undo: readonly (() => void)[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** What a half of the journal holds. */
interface Half {
  /** The last value by key, null where it was deleted. */
  readonly changes: Map<string, string | null>;
  keepsBytes: boolean;
}

const emptyHalf = (): Half => ({ changes: new Map(), keepsBytes: false });

class Change implements WriteTx {
  readonly operations: Operation[] = [];
  readonly undo: (() => void)[] = [];

  put(key: string, value: unknown): void {
    this.operations.push([key, JSON.stringify(value)]);
  }
  delete(key: string): void {
    this.operations.push([key, null]);
  }
  keep(key: string, bytes: Uint8Array): void {
    this.operations.push([key, bytes]);
  }
  onRollback(undo: () => void): void {
    this.undo.push(undo);
  }
}

export interface StorePaths {
  /** Folder of the database; its parent exists. */
  readonly path: string;
  /** The write-ahead log, on the same disk. */
  readonly journal: string;
  /** A preallocated file, on the same disk, that is given up when the disk is full. */
  readonly reserve: string;
}

export interface JournaledStoreOptions extends StorePaths {
  /** Whether this root was in use before: then a store without a summary is a damaged one. */
  readonly used: boolean;
  readonly bytes: FlushedBytes;
  /** A record could not be written and the disk is not full: nothing may be acknowledged any more. */
  readonly onFatal: (error: Error) => void;
}

/**
 * MetadataStore on a journal and a database. A change is acknowledged when its record in the journal is
 * on disk; those of one moment share a record. The database takes over, in the background, what one
 * half of the journal holds, while the other half is written.
 *
 * A crash leaves the database as of some record, and all later ones in the journal: open() brings them
 * together. A gap between the two means damage.
 */
export class JournaledStore implements MetadataStore {
  readonly #options: JournaledStoreOptions;
  readonly #database: Database;
  readonly #journal: Journal;
  readonly #reserve: Reserve;
  /** Of the last record. */
  #sequence: number;
  /** The half that is written to. */
  #current = emptyHalf();
  /** The other half, up to record `through`, on its way into the database. */
  #settling: (Half & { readonly through: number }) | undefined;
  /** Resolves to false when the disk was too full for it. */
  #settled: Promise<boolean> = Promise.resolve(true);
  #waiting: Waiting[] = [];
  #writing = false;
  #full = false;
  #stopped = false;

  private constructor(options: JournaledStoreOptions, database: Database, journal: Journal) {
    this.#options = options;
    this.#database = database;
    this.#journal = journal;
    this.#reserve = new Reserve(options.reserve);
    this.#sequence = database.journal;
  }

  /**
   * @throws OpError FailedPrecondition another process has it open; DataLoss it is damaged (nothing
   * is changed then); ResourceExhausted the disk is full
   */
  static async open(options: JournaledStoreOptions): Promise<JournaledStore> {
    try {
      return await JournaledStore.#openOnce(options);
    } catch (error) {
      if (!(error instanceof DiskFull)) throw error;
      // Opening writes a few files anew: on a full disk the reserve makes room for them.
      await new Reserve(options.reserve).giveUp();
      return JournaledStore.#openOnce(options);
    }
  }

  async *scan(prefix: string): AsyncIterable<readonly [string, unknown]> {
    const newer = [...(this.#settling?.changes ?? []), ...this.#current.changes];
    const changed = new Map(newer.filter(([key]) => key.startsWith(prefix)));
    for await (const record of this.#database.scan(prefix)) {
      if (!changed.has(record[0])) yield record;
    }
    for (const [key, value] of changed) if (value !== null) yield [key, JSON.parse(value)];
  }

  async update<T>(change: (tx: WriteTx) => T, options?: UpdateOptions): Promise<T> {
    if (this.#full && options?.frees !== true) await this.#admit();
    try {
      return await this.#enqueue(change);
    } catch (error) {
      if (!(error instanceof DiskFull) || options?.frees !== true) throw error;
      // The reserve has been given up since: what frees space goes through now, whatever was beside it.
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
    await this.#settled;
    if (this.#settling === undefined && this.#current.changes.size > 0) this.#turn();
    await this.#settled;
    await this.#journal[Symbol.asyncDispose]();
    await this.#database[Symbol.asyncDispose]();
    // Without room for it the next start is as after a crash.
    await leaveNote(this.#options.path).catch(() => undefined);
  }

  #enqueue<T>(change: (tx: WriteTx) => T): Promise<T> {
    const tx = new Change();
    let result: T;
    let bytes: number;
    try {
      result = change(tx);
      bytes = bytesOf(tx.operations);
      refuseTooLarge(bytes);
    } catch (error) {
      for (const undo of tx.undo.toReversed()) undo();
      throw error;
    }
    return new Promise((resolve, reject) => {
      const { operations, undo } = tx;
      this.#waiting.push({ operations, bytes, undo, resolve: () => resolve(result), reject });
      if (this.#writing) return;
      this.#writing = true;
      // Everything that this turn of the event loop brings shares the record.
      setImmediate(() => void this.#writeRecords());
    });
  }

  async #writeRecords(): Promise<void> {
    while (this.#waiting.length > 0) {
      const group = this.#takeGroup();
      try {
        await this.#write(group);
      } catch (error) {
        if (!isFull(error)) return this.#stop(error);
        await this.#takeBack(group);
        continue;
      }
      for (const waiting of group) waiting.resolve();
    }
    this.#writing = false;
  }

  /** Those that have waited longest, as many as one record holds. */
  #takeGroup(): readonly Waiting[] {
    let sum = 0;
    const tooMany = this.#waiting.findIndex(({ bytes }) => {
      sum += bytes;
      return sum > OPERATIONS_BYTES_MAX;
    });
    return this.#waiting.splice(0, tooMany === -1 ? this.#waiting.length : tooMany);
  }

  async #write(group: readonly Waiting[]): Promise<void> {
    const operations = group.flatMap((waiting) => waiting.operations);
    if (operations.length === 0) return;
    const bytes = group.reduce((sum, waiting) => sum + waiting.bytes, 0);
    if (!this.#journal.hasRoomFor(bytes)) await this.#makeRoom();
    else if (this.#current.changes.size >= CHANGES_MAX && this.#settling === undefined)
      this.#turn();
    await this.#journal.append({ sequence: this.#sequence + 1, operations });
    this.#sequence++;
    for (const [key, value] of operations) {
      if (value instanceof Uint8Array) this.#current.keepsBytes = true;
      else this.#current.changes.set(key, value);
    }
  }

  /** The journal's other half is free once the database has taken over what it holds. */
  async #makeRoom(): Promise<void> {
    if (!(await this.#settled)) this.#settled = this.#settle();
    if (!(await this.#settled)) throw new DiskFull(this.#options.path);
    this.#turn();
  }

  #turn(): void {
    this.#journal.turn();
    this.#settling = { ...this.#current, through: this.#sequence };
    this.#current = emptyHalf();
    this.#settled = this.#settle();
    this.#settled.catch((error: unknown) => this.#stop(error));
  }

  /** @returns false when even without the reserve the disk is too full: the changes stay in the journal */
  async #settle(): Promise<boolean> {
    if (this.#settling === undefined) return true;
    const { changes, keepsBytes, through } = this.#settling;
    // Should there be no room for what was written already, nothing but a new start can mend it: that
    // writes it again from here.
    if (keepsBytes) await this.#options.bytes.flush();
    try {
      await this.#database.settle(changes, through);
    } catch (error) {
      if (!isFull(error)) throw error;
      const wasFull = this.#full;
      this.#full = true;
      await this.#reserve.giveUp();
      return wasFull ? false : this.#settle();
    }
    this.#settling = undefined;
    return true;
  }

  /** Everything not yet acknowledged, newest first, as later changes rest on earlier ones. */
  async #takeBack(group: readonly Waiting[]): Promise<void> {
    this.#full = true;
    const failed = [...group, ...this.#waiting];
    this.#waiting = [];
    for (const { undo } of failed.toReversed()) for (const step of undo.toReversed()) step();
    await this.#reserve.giveUp();
    for (const { reject } of failed) reject(new DiskFull(this.#options.path));
  }

  /** While the disk is full only removals go on, until there is room for the reserve again. */
  async #admit(): Promise<void> {
    await this.#tryReserve(async () => (await this.#reserve.hasRoom()) && this.#reserve.take());
    if (this.#full) throw new DiskFull(this.#options.path);
  }

  async #tryReserve(take: () => Promise<boolean>): Promise<void> {
    try {
      this.#full = !(await take());
    } catch (error) {
      // The disk is not full but broken: as with a record.
      this.#stop(error);
      throw error;
    }
  }

  #stop(error: unknown): void {
    if (this.#stopped) return;
    this.#stopped = true;
    const { path } = this.#options;
    this.#options.onFatal(
      new Error(`metadata store ${path}: write failed: ${systemMessageOf(error)}`),
    );
  }

  static async #openOnce(options: JournaledStoreOptions): Promise<JournaledStore> {
    const { path, used } = options;
    const difference = await differsFromNote(path);
    if (difference !== undefined) throw damaged(path, difference);
    await using undo = new AsyncDisposableStack();
    const database = undo.use(await Database.open(path, used));
    await replay(database, options);
    await removeNote(path);
    const journal = undo.use(await Journal.open(options.journal));
    const store = new JournaledStore(options, database, journal);
    await store.#tryReserve(() => store.#reserve.take());
    undo.move();
    return store;
  }
}

/** Brings into the database what only the journal holds; makes the journal of a new root. */
async function replay(database: Database, options: JournaledStoreOptions): Promise<void> {
  const { path, journal, bytes } = options;
  if (!(await pathExists(journal))) {
    if (database.journal > 0) throw damaged(path, `its journal ${journal} is missing`);
    return Journal.create(journal);
  }
  const changes = new Map<string, string | null>();
  const kept = new Map<string, Uint8Array>();
  let through = database.journal;
  const records = await Journal.read(journal);
  if (records === undefined) throw damaged(path, `${journal} is not whole`);
  for (const { sequence, operations } of records) {
    if (sequence <= database.journal) continue;
    if (sequence !== through + 1) {
      throw damaged(path, `record ${through + 1} of its journal ${journal} is missing`);
    }
    through = sequence;
    for (const [key, value] of operations) {
      if (value instanceof Uint8Array) {
        kept.set(key, value);
        continue;
      }
      changes.set(key, value);
      if (value === null) kept.delete(key);
    }
  }
  if (kept.size > 0) await bytes.restore(kept);
  if (changes.size > 0) await database.settle(changes, through);
}

/** @throws OpError ResourceExhausted for labels and names of megabytes */
function refuseTooLarge(bytes: number): void {
  if (bytes <= OPERATIONS_BYTES_MAX) return;
  throw new OpError(
    'ResourceExhausted',
    `the record has ${bytes} bytes, at most ${OPERATIONS_BYTES_MAX} can be stored: use fewer labels`,
  );
}

/** Where the daemon keeps the store below its root. */
export const metadataPaths = (root: string): StorePaths => ({
  path: join(root, 'metadata'),
  journal: join(root, 'metadata.journal'),
  reserve: join(root, 'metadata.reserve'),
});
