import { getSystemErrorMessage, getSystemErrorName } from 'node:util';
import { OpError, SyncFailure, type ErrorCode } from '../../base/errors.ts';

/** Linux's numbers, equal on every architecture that Node runs on. errno(3) */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EAGAIN: 11,
  EACCES: 13,
  ENOTBLK: 15,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENOTTY: 25,
  ENOSPC: 28,
  EROFS: 30,
  EMLINK: 31,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ELOOP: 40,
  ENODATA: 61,
  EOPNOTSUPP: 95,
  EDQUOT: 122,
} as const;

const CODES: ReadonlyMap<number, ErrorCode> = new Map([
  [ERRNO.ENOSPC, 'ResourceExhausted'],
  [ERRNO.EDQUOT, 'ResourceExhausted'],
  [ERRNO.ENOENT, 'NotFound'],
  [ERRNO.EEXIST, 'AlreadyExists'],
  [ERRNO.EACCES, 'PermissionDenied'],
  [ERRNO.EPERM, 'PermissionDenied'],
  [ERRNO.EROFS, 'FailedPrecondition'],
]);

/** What one of our own system calls threw. Callers outside platform/ see an OpError or SyncFailure. */
export class SystemError extends Error {
  override readonly name = 'SystemError';
  /** Positive, as in C. */
  readonly errno: number;
  readonly syscall: string;
  constructor(errno: number, syscall: string) {
    super(`${syscall}: ${describeErrno(errno)}`);
    this.errno = errno;
    this.syscall = syscall;
  }
}

export const isErrno = (error: unknown, ...errnos: readonly number[]): boolean =>
  errnos.includes(errnoOf(error) ?? 0);

/** `disk full` is a state that users can end; no file system is broken by it. */
export const isDiskFull = (error: unknown): boolean => isErrno(error, ERRNO.ENOSPC, ERRNO.EDQUOT);

/** "no space left on device (ENOSPC)" */
function describeErrno(errno: number): string {
  // libuv does not know EDQUOT: node:fs calls it UNKNOWN.
  if (errno === ERRNO.EDQUOT) return 'disk quota exceeded (EDQUOT)';
  return `${getSystemErrorMessage(-errno)} (${getSystemErrorName(-errno)})`;
}

/**
 * Turns what a system call or node:fs threw into an OpError: `what` names the thing and what was being
 * done to it. An error of any other kind is a defect, or was translated before, and comes back as it is.
 */
export function fromSystemError(error: unknown, what: string): Error {
  const errno = errnoOf(error);
  if (errno === undefined) return error instanceof Error ? error : new Error(String(error));
  const hint = isDiskFull(error) ? '; make room on that file system' : '';
  return new OpError(CODES.get(errno) ?? 'Internal', `${what}: ${describeErrno(errno)}${hint}`, {
    cause: error,
  });
}

const SYNCS: ReadonlySet<unknown> = new Set(['syncfs', 'fsync', 'fdatasync']);

/**
 * The same where the call may have been a sync: after a failed one nobody knows what the disk holds, so
 * it is a SyncFailure, unless the disk is merely full.
 */
export function fromSyncError(error: unknown, what: string): Error {
  const errno = errnoOf(error);
  const isSync = error instanceof Error && 'syscall' in error && SYNCS.has(error.syscall);
  if (errno === undefined || !isSync || isDiskFull(error)) return fromSystemError(error, what);
  return new SyncFailure(`${what}: ${describeErrno(errno)}`, { cause: error });
}

/** Positive errno of an error of ours or of node:fs, undefined for any other. */
function errnoOf(error: unknown): number | undefined {
  if (error instanceof SystemError) return error.errno;
  if (!(error instanceof Error) || !('errno' in error) || !('syscall' in error)) return undefined;
  return typeof error.errno === 'number' && error.errno !== 0 ? Math.abs(error.errno) : undefined;
}
