import { quote } from '../../base/errors.ts';
import { ERRNO, fromSystemError, isErrno } from '../linux/errno.ts';
import { AT_FDCWD, chmodat, cstring, mkdirat, Stat, TYPE } from '../linux/files.ts';

export interface DirectoryToMake {
  readonly path: string;
  readonly mode: number;
}

/**
 * Makes each directory, parents first as they come, with exactly the mode given. One that exists is kept as it is.
 * @throws OpError AlreadyExists for something else of that name; NotFound without its parent
 */
export function makeDirectories(directories: readonly DirectoryToMake[]): void {
  const stat = new Stat();
  for (const { path, mode } of directories) {
    const name = cstring(path);
    try {
      mkdirat(AT_FDCWD, name, mode);
      // The umask took bits away; setting it would change it for every thread.
      if ((stat.readAt(AT_FDCWD, name).mode & 0o7777) !== mode) chmodat(AT_FDCWD, name, mode);
    } catch (error) {
      const exists = isErrno(error, ERRNO.EEXIST);
      const kept = exists && (stat.readAt(AT_FDCWD, name).mode & TYPE.mask) === TYPE.directory;
      if (!kept) throw fromSystemError(error, `making directory ${quote(path)}`);
    }
  }
}
