import { basename, dirname } from 'node:path';
import { quote } from '../../../base/errors.ts';
import {
  getSubvolInfo,
  qgroupLimit,
  snapCreate,
  snapCreateAside,
  subvolCreate,
} from '../../linux/btrfs.ts';
import { ERRNO, fromSyncError, fromSystemError, isErrno } from '../../linux/errno.ts';
import {
  AT_FDCWD,
  close,
  cstring,
  fchmod,
  mkdirat,
  openat,
  openDirectory,
  O,
  renameat,
  syncfs,
} from '../../linux/files.ts';
import type { SubvolumeMade, SubvolumeToMake } from '../../platform.ts';
import { never } from '../cancellation.ts';
import type { Budget } from '../measure-tree.ts';
import { encodeError, type EncodedError } from '../protocol.ts';
import { measureSubvolume } from './measure-subvolume.ts';
import { requireQuotas } from './quotas.ts';
import { removeEntry } from './remove-subvolumes.ts';

export type MadeSubvolume = SubvolumeMade | { readonly error: EncodedError };

/** Larger ones are not measured here: nobody waits for that. */
const BUDGET: Budget = { entries: 1000, ms: 20 };

/** Snapshots' own directories are private. */
const DIRECTORY_MODE = 0o700;
const ROOT_MODE = 0o755;
const UNFINISHED = 'new';

/**
 * Makes the subvolumes of several callers side by side; a failure of one leaves the others alone. Where
 * there are several, snapshots wait for their transaction on a thread of libuv's each; that costs two
 * changes of thread, which one alone does without.
 * @throws SyncFailure
 */
export async function makeSubvolumes(
  requests: readonly SubvolumeToMake[],
): Promise<readonly MadeSubvolume[]> {
  const path = requests.find(({ flush }) => flush === true)?.directory;
  const make = (request: SubvolumeToMake) => makeOne(request, requests.length > 1);
  if (path === undefined) return Promise.all(requests.map(make));
  const fd = openDirectory(dirname(path));
  try {
    const made = await Promise.all(requests.map(make));
    // The snapshots' transaction has carried the files, but only this tells of those it could not write.
    if (requests.some((request, index) => holdsFiles(request, made[index]))) syncfs(fd);
    return made;
  } catch (error) {
    throw fromSyncError(error, `flushing the file system of ${quote(path)}`);
  } finally {
    close(fd);
  }
}

/** Whether anything was written that could have failed; a root is made with its subvolume. */
function holdsFiles({ flush, measureAgainst }: SubvolumeToMake, made?: MadeSubvolume): boolean {
  if (flush !== true || made === undefined || 'error' in made) return false;
  const unwritten = measureAgainst?.base === undefined ? 1 : 0;
  return made.size === undefined || made.size.inodes > unwritten;
}

async function makeOne(request: SubvolumeToMake, aside: boolean): Promise<MadeSubvolume> {
  const { path, from } = request;
  try {
    return await makeAndMeasure(request, aside);
  } catch (error) {
    const what =
      from === undefined
        ? `making subvolume ${quote(path)}`
        : `snapshotting ${quote(from)} to ${quote(path)}`;
    return { error: encodeError(fromSystemError(error, what)) };
  }
}

async function makeAndMeasure(request: SubvolumeToMake, aside: boolean): Promise<MadeSubvolume> {
  const { directory, path, from, limit, measureAgainst } = request;
  const name = basename(path);
  makeDirectory(directory);
  const dirfd = openDirectory(directory);
  try {
    if (limit?.required === true) requireQuotas(dirfd, directory);
    removeEntry(dirfd, cstring(name), never);
    if (from === undefined) makeEmpty(dirfd, name);
    else await snapshot(dirfd, name, { from, readOnly: request.readOnly === true, aside });
    const root = openat(dirfd, cstring(name), O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
    try {
      const { id } = getSubvolInfo(root);
      const limited = limit === undefined || qgroupLimit(root, id, limit.bytes);
      const size =
        measureAgainst === undefined
          ? undefined
          : measureSubvolume(path, measureAgainst.base, never, BUDGET);
      return { id, limited, size };
    } finally {
      close(root);
    }
  } finally {
    close(dirfd);
  }
}

function makeDirectory(path: string): void {
  try {
    mkdirat(AT_FDCWD, cstring(path), DIRECTORY_MODE);
  } catch (error) {
    if (!isErrno(error, ERRNO.EEXIST)) throw error;
  }
}

/** Its root gets its mode before it gets its name, so that no crash leaves another one. */
function makeEmpty(dirfd: number, name: string): void {
  const unfinished = cstring(UNFINISHED);
  removeEntry(dirfd, unfinished, never);
  subvolCreate(dirfd, UNFINISHED);
  const root = openat(dirfd, unfinished, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
  try {
    fchmod(root, ROOT_MODE);
  } finally {
    close(root);
  }
  renameat(dirfd, unfinished, dirfd, cstring(name));
}

async function snapshot(
  dirfd: number,
  name: string,
  { from, readOnly, aside }: { from: string; readOnly: boolean; aside: boolean },
): Promise<void> {
  const source = openDirectory(from);
  try {
    if (aside) await snapCreateAside(dirfd, name, source, readOnly);
    else snapCreate(dirfd, name, source, readOnly);
  } finally {
    close(source);
  }
}
