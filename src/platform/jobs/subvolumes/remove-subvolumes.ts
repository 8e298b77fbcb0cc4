import { basename, dirname } from 'node:path';
import { quote } from '../../../base/errors.ts';
import {
  getSubvolInfo,
  KEY,
  MAX_U64,
  openSubvolume,
  snapDestroy,
  snapDestroyById,
  SUBVOLUME_ROOT,
  subvolSetWritable,
  TREE,
  treeSearch,
} from '../../linux/btrfs.ts';
import { readDirectory } from '../../linux/directory.ts';
import { ERRNO, fromSystemError, isErrno, SystemError } from '../../linux/errno.ts';
import type { Bytes } from '../../linux/ffi.ts';
import {
  close,
  openChildDirectory,
  openDirectory,
  rmdirat,
  Stat,
  unlinkat,
} from '../../linux/files.ts';
import type { Cancellation } from '../cancellation.ts';
import { decodeError, encodeError, type EncodedError } from '../protocol.ts';

/**
 * Removes subvolumes, and directories that hold some; absent is fine. Goes on after one that cannot go.
 * Their names are free and their files out of reach when it returns; the kernel's cleaner gives the
 * blocks back a moment later.
 * @throws OpError of the first that could not go; Canceled
 */
export function removeSubvolumes(paths: readonly string[], cancellation: Cancellation): void {
  let failure: EncodedError | undefined;
  for (const path of paths) {
    cancellation.check();
    try {
      removePath(path, cancellation);
    } catch (error) {
      failure ??= encodeError(fromSystemError(error, `removing ${quote(path)}`));
    }
  }
  if (failure !== undefined) throw decodeError(failure);
}

function removePath(path: string, cancellation: Cancellation): void {
  let parent: number;
  try {
    parent = openDirectory(dirname(path));
  } catch (error) {
    if (isErrno(error, ERRNO.ENOENT)) return;
    throw error;
  }
  try {
    removeEntry(parent, Buffer.from(`${basename(path)}\0`), cancellation);
  } finally {
    close(parent);
  }
}

/** The same for one name, NUL-terminated, in an open directory of a driver's own. */
export function removeEntry(dirfd: number, name: Bytes, cancellation: Cancellation): void {
  let fd: number;
  try {
    fd = openChildDirectory(dirfd, name);
  } catch (error) {
    if (isErrno(error, ERRNO.ENOENT)) return;
    if (!isErrno(error, ERRNO.ENOTDIR, ERRNO.ELOOP)) throw error;
    return refuse(unlinkat(dirfd, name), 'unlink');
  }
  try {
    if (new Stat().readOpen(fd).inode === SUBVOLUME_ROOT) {
      return destroy(dirfd, name, fd, cancellation);
    }
    const names: Bytes[] = [];
    readDirectory(fd, (inside) => names.push(Buffer.from(inside)) > 0);
    for (const inside of names) removeEntry(fd, inside, cancellation);
  } finally {
    close(fd);
  }
  refuse(rmdirat(dirfd, name), 'rmdir');
}

function refuse(errno: number, call: string): void {
  if (errno !== 0 && errno !== ERRNO.ENOENT) throw new SystemError(errno, call);
}

/** Those inside go first: a container that used btrfs itself left them. */
function destroy(dirfd: number, name: Bytes, root: number, cancellation: Cancellation): void {
  const text = Buffer.from(name.subarray(0, -1)).toString();
  try {
    return snapDestroy(dirfd, text);
  } catch (error) {
    if (isErrno(error, ERRNO.ENOENT)) return;
    if (!isErrno(error, ERRNO.ENOTEMPTY)) throw error;
  }
  const outer = getSubvolInfo(root).id;
  const parents = new Map<number, number>();
  const nested = [outer];
  for (const each of nested) {
    cancellation.check();
    for (const child of subvolumesIn(root, each)) {
      parents.set(child, each);
      nested.push(child);
    }
  }
  for (const each of nested.slice(1).toReversed()) {
    cancellation.check();
    destroyNested(root, each, parents.get(each) ?? outer);
  }
  snapDestroy(dirfd, text);
}

/** A read-only subvolume lets nothing inside go. */
function destroyNested(fd: number, id: number, parent: number): void {
  try {
    return snapDestroyById(fd, id);
  } catch (error) {
    if (!isErrno(error, ERRNO.EROFS)) throw error;
  }
  const root = openSubvolume(fd, parent);
  try {
    subvolSetWritable(root);
  } finally {
    close(root);
  }
  snapDestroyById(fd, id);
}

/** Ids of the subvolumes right inside another one. */
function subvolumesIn(fd: number, id: number): readonly number[] {
  const inside: number[] = [];
  const object = BigInt(id);
  const range = {
    tree: TREE.root,
    from: [object, KEY.rootRef, 0n],
    to: [object, KEY.rootRef, MAX_U64],
  } as const;
  treeSearch(fd, range, ({ offset }) => {
    inside.push(Number(offset));
  });
  return inside;
}
