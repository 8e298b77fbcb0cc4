import { basename, dirname, relative } from 'node:path';
import { OpError, quote } from '../../../base/errors.ts';
import { ERRNO, fromSystemError, isErrno } from '../../linux/errno.ts';
import {
  chmodat,
  close,
  cstring,
  lchownat,
  mkdirat,
  openBeneath,
  openDirectory,
  Stat,
  TYPE,
} from '../../linux/files.ts';
import type { DirectoryBeneath } from '../../platform.ts';

export function makeDirectoryBeneath(directory: DirectoryBeneath): void {
  const { root, path } = directory;
  const below = relative(root, path);
  const fds: number[] = [];
  try {
    fds.push(openDirectory(root));
    const parent = openBeneath(fds[0] ?? -1, cstring(dirname(below)));
    fds.push(parent);
    makeIn(parent, basename(below), directory);
  } catch (error) {
    if (isErrno(error, ERRNO.EXDEV)) {
      throw new OpError('InvalidArgument', `directory ${quote(path)}: leads out of ${quote(root)}`);
    }
    throw fromSystemError(error, `making directory ${quote(path)}`);
  } finally {
    for (const fd of fds) close(fd);
  }
}

function makeIn(parent: number, entry: string, { path, mode, uid, gid }: DirectoryBeneath): void {
  const name = cstring(entry);
  try {
    mkdirat(parent, name, mode);
  } catch (error) {
    if (!isErrno(error, ERRNO.EEXIST)) throw error;
    refuseUnlike(new Stat().readAt(parent, name), path, mode);
    return;
  }
  lchownat(parent, name, uid, gid);
  chmodat(parent, name, mode);
}

/** What is there stays as it is: its owner relies on it. */
function refuseUnlike(stat: Stat, path: string, mode: number): void {
  const refuse = (why: string): OpError =>
    new OpError('FailedPrecondition', `directory ${quote(path)}: ${why}`);
  if ((stat.mode & TYPE.mask) !== TYPE.directory) throw refuse('something else has that name');
  const found = stat.mode & 0o777;
  if (found !== mode) {
    throw refuse(`is there with mode ${found.toString(8)}, not ${mode.toString(8)}`);
  }
}
