/** One change to the persistent records. */
export interface WriteTx {
  put(key: string, value: unknown): void;
  delete(key: string): void;
  /**
   * Keeps `bytes`, which the caller has in a file that is not synced yet, until they are on disk there
   * (FlushedBytes). With this the record, which is put under the same key, may count before they are.
   */
  keep(key: string, bytes: Uint8Array): void;
  /** Runs if the record cannot be written after all; undo steps of all later changes ran before it. */
  onRollback(undo: () => void): void;
}

/**
 * What a caller adds to the batch of a change: records that are there with it or not at all.
 * @returns takes it back in a later batch, should the change fail after its batch was written
 */
export type Along = (tx: WriteTx) => (tx: WriteTx) => void;

export interface UpdateOptions {
  /** The change gives space back: it may use the reserve when the disk is full. */
  readonly frees?: boolean;
}

/** What the store asks of those who let it keep bytes. */
export interface FlushedBytes {
  /** All kept bytes are to be on disk in their files when this resolves: the store then forgets them. */
  flush(): Promise<void>;
  /** After a crash: their files may be missing or damaged. On disk when it resolves. */
  restore(kept: ReadonlyMap<string, Uint8Array>): Promise<void>;
}

/**
 * The persistent half of the state. The other half, the index that answers every read, is in memory
 * and belongs to the caller: `change` alters both in the same turn, and registers how to take back
 * what it did in memory.
 */
export interface MetadataStore extends AsyncDisposable {
  /** All records below a prefix, in no order; for start-up. */
  scan(prefix: string): AsyncIterable<readonly [key: string, value: unknown]>;
  /**
   * Runs `change` at once and resolves when the record that carries it is on disk. Changes made while
   * a record is being written share the next one.
   * @throws OpError ResourceExhausted when the disk is full; the change was taken back.
   */
  update<T>(change: (tx: WriteTx) => T, options?: UpdateOptions): Promise<T>;
  /** Resolves when everything updated so far is on disk: an answer that rests on it may then be given. */
  settled(): Promise<void>;
}
