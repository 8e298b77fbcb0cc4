import { quote } from '../../base/errors.ts';
import type { Bytes } from '../linux/ffi.ts';
import { ERRNO, fromSystemError, isErrno } from '../linux/errno.ts';
import { AT_FDCWD, chmodat, cstring, lchownat, mkdirat, Stat, TYPE } from '../linux/files.ts';
import type { DirectoryToMake } from '../platform.ts';
import { encodeError, type EncodedError } from './protocol.ts';

/** One for each call of the group; a failure of one leaves the others alone. */
export type Made = undefined | EncodedError;

export const makeDirectories = (
  calls: readonly (readonly DirectoryToMake[])[],
): readonly Made[] =>
  calls.map((directories) => {
    try {
      makeInOrder(directories);
      return undefined;
    } catch (error) {
      return encodeError(error);
    }
  });

/**
 * Makes each directory, parents first as they come, with exactly the mode and owner given. One that exists
 * is given them.
 * @throws OpError AlreadyExists for something else of that name; NotFound without its parent
 */
function makeInOrder(directories: readonly DirectoryToMake[]): void {
  const stat = new Stat();
  for (const { path, mode, uid = 0, gid = 0 } of directories) {
    const name = cstring(path);
    try {
      makeOrFind(name, mode, stat);
      if (stat.uid !== uid || stat.gid !== gid) lchownat(AT_FDCWD, name, uid, gid);
      // The umask took bits away; setting it would change it for every thread.
      if ((stat.mode & 0o7777) !== mode) chmodat(AT_FDCWD, name, mode);
    } catch (error) {
      throw fromSystemError(error, `making directory ${quote(path)}`);
    }
  }
}

function makeOrFind(name: Bytes, mode: number, stat: Stat): void {
  let exists: unknown;
  try {
    mkdirat(AT_FDCWD, name, mode);
  } catch (error) {
    if (!isErrno(error, ERRNO.EEXIST)) throw error;
    exists = error;
  }
  stat.readAt(AT_FDCWD, name);
  if (exists !== undefined && (stat.mode & TYPE.mask) !== TYPE.directory) throw exists;
}
