import { OpError } from '../../base/errors.ts';
import { ERRNO, fromSystemError, isErrno } from '../../platform/linux/errno.ts';
import { quoteName, type Name } from '../apply/names.ts';

/** What was thrown at a path of a tree, with the path; empty for the root. */
export function failureAt(path: Name, error: unknown): Error {
  const what = path === '' ? 'the root' : quoteName(path);
  if (error instanceof OpError) {
    return new OpError(error.code, `${what}: ${error.message}`, { cause: error });
  }
  // Every name was found just before, without following links.
  if (!isErrno(error, ERRNO.ENOENT, ERRNO.ENOTDIR, ERRNO.ELOOP))
    return fromSystemError(error, what);
  return new OpError('Aborted', `${what}: was changed while it was compared; try again`, {
    cause: error,
  });
}
