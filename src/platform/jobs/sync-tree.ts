import { dirname } from 'node:path';
import { quote } from '../../base/errors.ts';
import { DirectoryChain, DT, readDirectory } from '../linux/directory.ts';
import { ERRNO, fromSyncError, isErrno } from '../linux/errno.ts';
import type { Bytes } from '../linux/ffi.ts';
import { close, fsync, O, open, openat, openDirectory } from '../linux/files.ts';

/** How many files may still be synced one by one: each costs a commit of the file system's journal. */
export interface FileAllowance {
  files: number;
}

/**
 * Syncs every file and directory of a tree, and the directories above it up to and including `top`. On
 * a tree that is on disk already it costs nothing, where a flush of the whole file system costs at
 * least one of the disk, and waits for what others wrote.
 * @returns false when the tree holds something that cannot be synced by itself, or more files than
 * allowed: then the file system has to be flushed
 * @throws SyncFailure; OpError ResourceExhausted, NotFound
 */
export function syncTree(path: string, top: string, allowance: FileAllowance): boolean {
  if (!path.startsWith(`${top}/`)) return false;
  try {
    using chain = new DirectoryChain(openDirectory(path));
    if (!syncDirectories(chain, allowance)) return false;
    for (let above = dirname(path); above.length >= top.length; above = dirname(above)) {
      syncDirectory(above);
    }
    return true;
  } catch (error) {
    throw fromSyncError(error, `syncing ${quote(path)}`);
  }
}

function syncDirectories(chain: DirectoryChain, allowance: FileAllowance): boolean {
  const pending: Bytes[][] = [];
  for (;;) {
    const directories = syncFiles(chain.fd, allowance);
    if (directories === undefined) return false;
    pending.push(directories);
    let next: Bytes | undefined;
    while ((next = pending.at(-1)?.pop()) === undefined) {
      fsync(chain.fd);
      pending.pop();
      if (pending.length === 0) return true;
      chain.leave();
    }
    try {
      chain.enter(next);
    } catch (error) {
      // A mount, or changed meanwhile.
      if (isErrno(error, ERRNO.EXDEV, ERRNO.ENOENT, ERRNO.ENOTDIR)) return false;
      throw error;
    }
  }
}

/** @returns the directories inside, or undefined when there is something else than files and these */
function syncFiles(dirfd: number, allowance: FileAllowance): Bytes[] | undefined {
  const directories: Bytes[] = [];
  const complete = readDirectory(dirfd, (name, type) => {
    if (type === DT.directory) directories.push(Buffer.from(name));
    else if (type === DT.file && allowance.files-- > 0) syncFile(dirfd, name);
    else return false;
    return true;
  });
  return complete ? directories : undefined;
}

function syncFile(dirfd: number, name: Bytes): void {
  const fd = openat(dirfd, name, O.RDONLY | O.NOFOLLOW | O.NONBLOCK);
  try {
    fsync(fd);
  } finally {
    close(fd);
  }
}

function syncDirectory(path: string): void {
  const fd = open(path, O.RDONLY | O.DIRECTORY);
  try {
    fsync(fd);
  } finally {
    close(fd);
  }
}
