import { threadId } from 'node:worker_threads';
import { OpError, quote } from '../../base/errors.ts';
import type { Algorithm } from '../../base/digest.ts';
import { fromSystemError } from '../linux/errno.ts';
import { close, ftruncate, O, open, read, seek, Stat, write } from '../linux/files.ts';
import type { HexDigests } from '../platform.ts';
import { startHash, type RunningHash } from './running-hash.ts';

const READ_BYTES = 1024 * 1024;
/** What is read again in one go: appends of other files in the same thread wait as long. */
const SLICE_BYTES = 32 * 1024 * 1024;
const FILE_MODE = 0o600;

export interface OpenedFile {
  /** Names the file in the thread that opened it. */
  readonly id: number;
  /** Valid in every thread of the process. */
  readonly fd: number;
  readonly size: number;
  readonly progress: Progress;
}

export interface Progress {
  readonly digests: HexDigests;
  /** Bytes that `readOn` has still to read before the digests are of all the file holds. */
  readonly unread: number;
}

/** The open files of one thread, which alone touches their hashes. */
const files = new Map<number, HashedFileState>();
/** No two threads give the same ids: one that replaces a dead one must not know its files. */
let lastId = threadId * 2 ** 32;

/** @throws OpError ResourceExhausted, NotFound for its folder, PermissionDenied */
export function openFile(path: string, algorithms: readonly Algorithm[]): OpenedFile {
  try {
    const fd = open(path, O.RDWR | O.CREAT | O.NOFOLLOW, FILE_MODE);
    try {
      const file = new HashedFileState(path, fd, new Stat().readOpen(fd).size);
      const progress = file.addAlgorithms(algorithms);
      files.set(++lastId, file);
      return { id: lastId, fd, size: file.size, progress };
    } catch (error) {
      close(fd);
      throw error;
    }
  } catch (error) {
    throw fromSystemError(error, `opening ingest ${quote(path)}`);
  }
}

/** Takes over the memory of `data`. */
export function appendToFile(id: number, data: Uint8Array): HexDigests {
  try {
    return onFile(id, 'writing', (file) => file.append(data));
  } finally {
    // Not left to the collector: a thread makes too little garbage for it to come in time.
    if (data.buffer instanceof ArrayBuffer) data.buffer.transfer(0);
  }
}

export function truncateFile(id: number): HexDigests {
  return onFile(id, 'truncating', (file) => file.truncate());
}

export function addFileAlgorithm(id: number, algorithm: Algorithm): Progress {
  return onFile(id, 'reading', (file) => file.addAlgorithms([algorithm]));
}

export function readFileOn(id: number): Progress {
  return onFile(id, 'reading', (file) => file.readOn());
}

export function closeFile(id: number): void {
  files.get(id)?.close();
  files.delete(id);
}

function onFile<T>(id: number, verb: string, action: (file: HashedFileState) => T): T {
  const file = files.get(id);
  if (file === undefined) throw new Error(`hashed file ${id} is not open in this thread`);
  try {
    return action(file);
  } catch (error) {
    throw fromSystemError(error, `${verb} ingest ${quote(file.path)}`);
  }
}

class HashedFileState {
  readonly path: string;
  readonly #fd: number;
  #size: number;
  /** Of all bytes. */
  #hashes = new Map<Algorithm, RunningHash>();
  /** Of the bytes before `#read`; none while all hashes are of all bytes. */
  #late = new Map<Algorithm, RunningHash>();
  #read = 0;

  constructor(path: string, fd: number, size: number) {
    this.path = path;
    this.#fd = fd;
    this.#size = size;
    seek(fd, size);
  }

  get size(): number {
    return this.#size;
  }

  addAlgorithms(algorithms: readonly Algorithm[]): Progress {
    this.#read = 0;
    for (const name of algorithms) {
      if (!this.#hashes.has(name)) this.#late.set(name, startHash(name));
    }
    return this.#size === 0 ? this.#caughtUp() : this.readOn();
  }

  /** Reads the next slice of what the late hashes lack. */
  readOn(): Progress {
    if (this.#late.size === 0) return { digests: this.#digests(), unread: 0 };
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    const end = Math.min(this.#read + SLICE_BYTES, this.#size);
    seek(this.#fd, this.#read);
    while (this.#read < end) {
      const length = read(this.#fd, buffer.subarray(0, Math.min(READ_BYTES, end - this.#read)));
      if (length === 0) throw new OpError('DataLoss', `ingest ${quote(this.path)} became shorter`);
      for (const hash of this.#late.values()) hash.update(buffer.subarray(0, length));
      this.#read += length;
    }
    if (this.#read === this.#size) return this.#caughtUp();
    return { digests: {}, unread: this.#size - this.#read };
  }

  append(data: Uint8Array): HexDigests {
    try {
      write(this.#fd, data);
    } catch (error) {
      // Half an append must not be taken for bytes of the ingest when it is resumed.
      ftruncate(this.#fd, this.#size);
      seek(this.#fd, this.#size);
      throw error;
    }
    this.#size += data.length;
    for (const hash of this.#hashes.values()) hash.update(data);
    return this.#digests();
  }

  truncate(): HexDigests {
    ftruncate(this.#fd, 0);
    seek(this.#fd, 0);
    this.#size = 0;
    this.#hashes = new Map([...this.#hashes.keys()].map((name) => [name, startHash(name)]));
    return this.#digests();
  }

  close(): void {
    close(this.#fd);
  }

  #digests(): HexDigests {
    return Object.fromEntries([...this.#hashes].map(([name, hash]) => [name, hash.digest()]));
  }

  /** The position is at the end again. */
  #caughtUp(): Progress {
    for (const [name, hash] of this.#late) this.#hashes.set(name, hash);
    this.#late.clear();
    return { digests: this.#digests(), unread: 0 };
  }
}
