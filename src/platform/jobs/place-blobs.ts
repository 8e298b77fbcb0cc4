import { dirname } from 'node:path';
import { quote, SyncFailure } from '../../base/errors.ts';
import { fromSyncError, fromSystemError, isDiskFull } from '../linux/errno.ts';
import {
  AT_FDCWD,
  chmodat,
  close,
  cstring,
  fchmod,
  fdatasync,
  fsync,
  linkat,
  O,
  open,
  renameat,
  syncfs,
  unlinkat,
  write,
} from '../linux/files.ts';
import { encodeError, type EncodedError } from './protocol.ts';

/** From here on one flush of the file system costs less than one sync for each file. */
const SYNCFS_FROM = 3;
const BLOB_MODE = 0o444;

/** The bytes of a blob in the request's shared memory. */
interface Span {
  readonly start: number;
  readonly end: number;
}

export interface Placement {
  readonly source: Span | { readonly path: string };
  readonly target: string;
  readonly temporary: string;
}

export interface PlaceRequest {
  readonly bytes: Uint8Array;
  readonly placements: readonly Placement[];
  readonly sync: boolean;
}

/** One for each placement; a failure of one leaves the others alone. */
export type Placed = undefined | EncodedError;

/**
 * Puts a group of blobs under their names. The order is an invariant: bytes on disk, then the name,
 * then the folder on disk; so a name that is there after a crash has all its bytes. Without `sync`
 * somebody else has the bytes on disk.
 * @throws SyncFailure
 */
export function placeBlobs(request: PlaceRequest): readonly Placed[] {
  const group = new PlacementGroup(request);
  try {
    group.write();
    if (request.sync) group.sync();
    group.name();
    if (request.sync) group.syncFolders();
  } finally {
    group.close();
  }
  return group.placed;
}

class PlacementGroup {
  readonly placed: Placed[];
  readonly #request: PlaceRequest;
  /** Of the temporary files, by index of their placement. */
  readonly #open = new Map<number, number>();

  constructor(request: PlaceRequest) {
    this.#request = request;
    this.placed = request.placements.map(() => undefined);
  }

  write(): void {
    this.#each((placement, index) => {
      const { source, temporary } = placement;
      if ('path' in source) {
        chmodat(AT_FDCWD, cstring(source.path), BLOB_MODE);
        return;
      }
      const fd = open(temporary, O.WRONLY | O.CREAT | O.EXCL, BLOB_MODE);
      this.#open.set(index, fd);
      write(fd, this.#request.bytes.subarray(source.start, source.end));
      fchmod(fd, BLOB_MODE);
    });
  }

  sync(): void {
    const first = this.#open.values().next().value;
    if (this.#open.size >= SYNCFS_FROM && first !== undefined) {
      try {
        syncfs(first);
        return;
      } catch (error) {
        if (!isDiskFull(error)) throw fromSyncError(error, 'flushing the new blobs');
        // Whose bytes found no room is told only file by file.
      }
    }
    for (const [index, fd] of this.#open) {
      try {
        fdatasync(fd);
      } catch (error) {
        if (!isDiskFull(error)) throw fromSyncError(error, 'syncing a new blob');
        this.#fail(index, error);
      }
    }
  }

  /** What is an ingest's file keeps its old name too, until the blob counts and the ingest goes. */
  name(): void {
    this.#each(({ source, target, temporary }) => {
      if ('path' in source) {
        unlinkat(AT_FDCWD, cstring(target));
        linkat(AT_FDCWD, cstring(source.path), AT_FDCWD, cstring(target));
      } else renameat(AT_FDCWD, cstring(temporary), AT_FDCWD, cstring(target));
    });
  }

  syncFolders(): void {
    const folders = new Map<string, number[]>();
    this.#each(({ target }, index) => {
      const folder = dirname(target);
      const indexes = folders.get(folder);
      if (indexes === undefined) folders.set(folder, [index]);
      else indexes.push(index);
    });
    for (const [folder, indexes] of folders) {
      try {
        syncFolder(folder);
      } catch (error) {
        const failure = fromSyncError(error, `syncing folder ${quote(folder)}`);
        if (failure instanceof SyncFailure) throw failure;
        for (const index of indexes) this.placed[index] = encodeError(failure);
      }
    }
  }

  close(): void {
    for (const fd of this.#open.values()) close(fd);
    this.#open.clear();
  }

  /** Runs a step for each placement that has not failed yet. */
  #each(step: (placement: Placement, index: number) => void): void {
    this.#request.placements.forEach((placement, index) => {
      if (this.placed[index] !== undefined) return;
      try {
        step(placement, index);
      } catch (error) {
        this.#fail(index, error);
      }
    });
  }

  #fail(index: number, error: unknown): void {
    const placement = this.#request.placements[index];
    if (placement === undefined) return;
    this.placed[index] = encodeError(
      fromSystemError(error, `storing blob ${quote(placement.target)}`),
    );
    const fd = this.#open.get(index);
    if (fd === undefined) return;
    close(fd);
    this.#open.delete(index);
    unlinkat(AT_FDCWD, cstring(placement.temporary));
  }
}

function syncFolder(folder: string): void {
  const fd = open(folder, O.RDONLY | O.DIRECTORY);
  try {
    fsync(fd);
  } finally {
    close(fd);
  }
}
