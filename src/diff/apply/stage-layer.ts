import { randomUUID } from 'node:crypto';
import type { Digest } from '../../base/digest.ts';
import { OpError, quote } from '../../base/errors.ts';
import { never } from '../../platform/jobs/cancellation.ts';
import { removeTreeAt } from '../../platform/jobs/remove-tree.ts';
import { ERRNO, fromSyncError, fromSystemError, isErrno } from '../../platform/linux/errno.ts';
import {
  close,
  fsync,
  mkdirat,
  O,
  openat,
  openChildDirectory,
  openDirectory,
  renameat,
  syncfs,
} from '../../platform/linux/files.ts';
import type { Usage } from '../../snapshotters/snapshotter.ts';
import { Account } from './account.ts';
import { BodyFile } from './body-file.ts';
import { EntryLog } from './entry-log.ts';
import { describeAt, hiddenBy, placeBehind, placeOf, WHITEOUT } from './layer-writer.ts';
import { bytesOfName } from './names.ts';
import type { TarEntry } from './tar-entry.ts';
import type { TarSink } from './tar-reader.ts';
import type { StageTarget } from './target.ts';
import { namesOf } from './tree.ts';

/** In the folder of a staged layer: its entries. Its files lie beside, by the offsets of their entries. */
export const ENTRIES = 'entries';

const OWN_FILE = 0o600;
const OWN_FOLDER = 0o700;
const NEW_FILE = O.WRONLY | O.CREAT | O.EXCL | O.NOFOLLOW;

export interface StagedLayer {
  readonly folder: string;
  readonly number: number;
  readonly digest: string;
  /** Of its files; undefined where that is not known. */
  readonly usage: Usage | undefined;
}

/** The whole layers in a directory of staged ones, in the order they came in. */
export const stagedLayers = (directory: number): readonly StagedLayer[] =>
  namesOf(directory)
    .flatMap((folder) => {
      const [, number, digest = '', inodes, size] =
        /^(\d+) (\S+)(?: (\d+) (\d+))?$/.exec(folder) ?? [];
      if (number === undefined) return [];
      const usage = inodes && size ? { inodes: Number(inodes), size: Number(size) } : undefined;
      return [{ folder, number: Number(number), digest, usage }];
    })
    .toSorted((a, b) => a.number - b.number);

/**
 * Keeps a layer for a tree that is not known yet: all of it that can be done now. It is written into a folder without a
 * number, which a crash leaves to whoever removes the snapshot, or commits it: no rebase looks at it. `keep` syncs that,
 * gives it a number, with what its files have allocated, and syncs the name: a crash leaves the folder with or without
 * it, and nobody was told.
 */
export class LayerStage implements TarSink, Disposable {
  readonly #path: string;
  /** Of all layers that are staged for the snapshot. */
  readonly #directory: number;
  readonly #name = bytesOfName(`new-${randomUUID()}`);
  readonly #folder: number;
  readonly #entries: number;
  readonly #log: EntryLog;
  #entry: TarEntry | undefined;
  /** Of the files, in their one folder. */
  readonly #account: Account;
  readonly #body: BodyFile;

  /**
   * @throws OpError Unimplemented: nobody would write its layers into the tree later; FailedPrecondition:
   * something else was put into it already
   */
  constructor({ upper, staged }: StageTarget) {
    this.#path = staged;
    const isFirst = isEmpty(upper);
    this.#directory = openStaged(staged);
    const opened = [this.#directory];
    try {
      // From the first staged layer on, the upper directory is the rebase's.
      if (!isFirst) throw writtenTo(upper);
      mkdirat(this.#directory, this.#name, OWN_FOLDER);
      this.#folder = openChildDirectory(this.#directory, this.#name);
      opened.push(this.#folder);
      this.#entries = openat(this.#folder, bytesOfName(ENTRIES), NEW_FILE, OWN_FILE);
      this.#log = new EntryLog(this.#entries);
      this.#account = new Account(this.#folder);
      this.#body = new BodyFile(this.#account);
    } catch (error) {
      opened.forEach(close);
      this.clear();
      throw fromSystemError(error, `staging a layer in ${quote(staged)}`);
    }
  }

  /** @throws OpError InvalidArgument for what fits no tree at all */
  begin(entry: TarEntry): void {
    this.#guard(entry, () => {
      this.#entry = entry;
      const [, name] = placeOf(entry);
      const isMark = name.startsWith(WHITEOUT);
      if (isMark) hiddenBy(name);
      this.#log.add(entry);
      if (isMark || entry.type !== 'file') return;
      const body = String(entry.offset);
      const fd = openat(this.#folder, bytesOfName(body), NEW_FILE, entry.mode & 0o777);
      // Its folder is ours, with whatever group the file system gave it.
      this.#body.open({ fd, entry, inherited: 'group', place: { directory: '', name: body } });
    });
  }

  body(bytes: Uint8Array, position: number): void {
    this.#guard(this.#entry, () => this.#body.write(bytes, position));
  }

  end(): void {
    this.#guard(this.#entry, () => this.#body.finish());
  }

  finish(): void {
    this.#guard(this.#entry, () => this.#log.flush());
  }

  get place(): string {
    return placeBehind(this.#entry);
  }

  /** From now on it is a layer of the snapshot. On disk when it returns. @throws SyncFailure */
  keep(digest: Digest): void {
    try {
      syncfs(this.#folder);
      let number = stagedLayers(this.#directory).at(-1)?.number ?? 0;
      const usage = this.#account.settle(this.#folder);
      const counted = usage === undefined ? '' : ` ${usage.inodes} ${usage.size}`;
      while (!this.#rename(`${++number} ${digest}${counted}`));
      fsync(this.#directory);
    } catch (error) {
      throw fromSyncError(error, `keeping a layer in ${quote(this.#path)}`);
    }
  }

  /** Nothing stays. */
  clear(): void {
    let directory: number;
    try {
      directory = openDirectory(this.#path);
    } catch (error) {
      // It went with its snapshot.
      if (isErrno(error, ERRNO.ENOENT)) return;
      throw fromSystemError(error, `opening ${quote(this.#path)}`);
    }
    removeTreeAt(directory, this.#name, this.#path, never);
  }

  [Symbol.dispose](): void {
    this.#body[Symbol.dispose]();
    for (const fd of [this.#entries, this.#folder, this.#directory]) close(fd);
  }

  /** @returns false where another one has the name: the same layer, at the same time */
  #rename(name: string): boolean {
    try {
      renameat(this.#directory, this.#name, this.#directory, bytesOfName(name));
      return true;
    } catch (error) {
      if (!isErrno(error, ERRNO.ENOTEMPTY, ERRNO.EEXIST)) throw error;
      return false;
    }
  }

  #guard(entry: TarEntry | undefined, step: () => void): void {
    try {
      step();
    } catch (error) {
      throw describeAt(entry, error);
    }
  }
}

function openStaged(path: string): number {
  try {
    return openDirectory(path);
  } catch (error) {
    if (!isErrno(error, ERRNO.ENOENT)) throw fromSystemError(error, `opening ${quote(path)}`);
    throw new OpError(
      'Unimplemented',
      `an overlay mount without lowerdir and without ${quote(path)}: whoever made it would not rebase layers that are applied here`,
    );
  }
}

function isEmpty(upper: string): boolean {
  let fd = -1;
  try {
    fd = openDirectory(upper);
    return namesOf(fd).length === 0;
  } catch (error) {
    throw fromSystemError(error, `opening ${quote(upper)}`);
  } finally {
    if (fd >= 0) close(fd);
  }
}

const writtenTo = (upper: string): OpError =>
  new OpError(
    'FailedPrecondition',
    `${quote(upper)} has files already: a layer whose parent comes at Commit has to be the first; prepare another snapshot`,
  );
