import { quote } from '../../base/errors.ts';
import { ERRNO, fromSystemError, isErrno, SystemError } from '../linux/errno.ts';
import { AT_FDCWD, chmodat, cstring, lchownat, mkdirat, Stat, TYPE } from '../linux/files.ts';
import type { DirectoryToMake } from '../platform.ts';
import { encodeError, type EncodedError } from './protocol.ts';

/** One for each list of directories; a failure of one leaves the others alone. */
export type Made = undefined | EncodedError;

/** Makes the directories of several callers. */
export function makeAllDirectories(
  lists: readonly (readonly DirectoryToMake[])[],
): readonly Made[] {
  return lists.map((directories) => {
    try {
      makeDirectories(directories);
      return undefined;
    } catch (error) {
      return encodeError(error);
    }
  });
}

/**
 * Makes directories in order, each with just this mode and owner; one that exists is given them.
 * @throws OpError AlreadyExists for something else of that name; NotFound without its parent
 */
function makeDirectories(directories: readonly DirectoryToMake[]): void {
  const stat = new Stat();
  for (const directory of directories) {
    try {
      makeDirectory(directory, stat);
    } catch (error) {
      throw fromSystemError(error, `making directory ${quote(directory.path)}`);
    }
  }
}

function makeDirectory({ path, mode, uid, gid }: DirectoryToMake, stat: Stat): void {
  const name = cstring(path);
  try {
    mkdirat(AT_FDCWD, name, mode);
  } catch (error) {
    if (!isErrno(error, ERRNO.EEXIST)) throw error;
  }
  stat.readAt(AT_FDCWD, name);
  if ((stat.mode & TYPE.mask) !== TYPE.directory) throw new SystemError(ERRNO.EEXIST, 'mkdir');
  const owner = uid ?? process.geteuid?.() ?? 0;
  const group = gid ?? process.getegid?.() ?? 0;
  // The umask took bits away, and a set-group-id parent lent its group. chown drops mode bits.
  const isOwned = stat.uid === owner && stat.gid === group;
  if (!isOwned) lchownat(AT_FDCWD, name, owner, group);
  if (!isOwned || (stat.mode & 0o7777) !== mode) chmodat(AT_FDCWD, name, mode);
}
