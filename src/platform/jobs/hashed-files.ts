import { quote } from '../../base/errors.ts';
import type { Algorithm } from '../../base/digest.ts';
import { fromSyncError, fromSystemError } from '../linux/errno.ts';
import { close, fdatasync, ftruncate, O, open, read, seek, write } from '../linux/files.ts';
import type { HexDigests } from '../platform.ts';
import { startHash, type RunningHash } from './running-hash.ts';

const READ_BYTES = 1024 * 1024;
const FILE_MODE = 0o600;

export interface OpenedFile {
  /** Names the file in the thread that opened it. */
  readonly id: number;
  /** Valid in every thread of the process. */
  readonly fd: number;
  readonly size: number;
  readonly digests: HexDigests;
}

/** The open files of one thread, which alone touches their hashes. */
const files = new Map<number, HashedFileState>();
let lastId = 0;

/** @throws OpError ResourceExhausted, NotFound for its folder, PermissionDenied */
export function openFile(path: string, algorithms: readonly Algorithm[]): OpenedFile {
  try {
    const fd = open(path, O.RDWR | O.CREAT | O.NOFOLLOW, FILE_MODE);
    try {
      const file = new HashedFileState(path, fd);
      for (const algorithm of algorithms) file.addAlgorithm(algorithm);
      const size = file.readToEnd();
      files.set(++lastId, file);
      return { id: lastId, fd, size, digests: file.digests() };
    } catch (error) {
      close(fd);
      throw error;
    }
  } catch (error) {
    throw fromSystemError(error, `opening ingest ${quote(path)}`);
  }
}

export function appendToFile(id: number, data: Uint8Array): HexDigests {
  return onFile(id, 'writing', (file) => file.append(data));
}

export function truncateFile(id: number): HexDigests {
  return onFile(id, 'truncating', (file) => file.truncate());
}

export function addFileAlgorithm(id: number, algorithm: Algorithm): HexDigests {
  return onFile(id, 'reading', (file) => file.addAlgorithm(algorithm));
}

export function closeFile(id: number): void {
  files.get(id)?.close();
  files.delete(id);
}

/**
 * In any thread: the descriptor is the process's.
 * @throws SyncFailure; OpError ResourceExhausted
 */
export function syncFile(fd: number, path: string): void {
  try {
    fdatasync(fd);
  } catch (error) {
    throw fromSyncError(error, `syncing ${quote(path)}`);
  }
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
  #hashes = new Map<Algorithm, RunningHash>();
  #size = 0;

  constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
  }

  digests(): HexDigests {
    return Object.fromEntries([...this.#hashes].map(([name, hash]) => [name, hash.digest()]));
  }

  /** Hashes what the file holds from the known end on. @returns its size */
  readToEnd(): number {
    this.#size += this.#hashFrom(this.#size, [...this.#hashes.values()]);
    return this.#size;
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
    return this.digests();
  }

  truncate(): HexDigests {
    ftruncate(this.#fd, 0);
    seek(this.#fd, 0);
    this.#size = 0;
    this.#hashes = new Map([...this.#hashes.keys()].map((name) => [name, startHash(name)]));
    return this.digests();
  }

  addAlgorithm(algorithm: Algorithm): HexDigests {
    if (!this.#hashes.has(algorithm)) {
      const hash = startHash(algorithm);
      if (this.#size > 0) this.#hashFrom(0, [hash]);
      this.#hashes.set(algorithm, hash);
    }
    return this.digests();
  }

  close(): void {
    close(this.#fd);
  }

  /** Leaves the position at the end. */
  #hashFrom(offset: number, hashes: readonly RunningHash[]): number {
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    seek(this.#fd, offset);
    for (let total = 0; ;) {
      const length = read(this.#fd, buffer);
      if (length === 0) return total;
      total += length;
      for (const hash of hashes) hash.update(buffer.subarray(0, length));
    }
  }
}
