import { expect, test } from 'vitest';
import { isOpError, OpError, SyncFailure } from '../../base/errors.ts';
import { ERRNO, fromSyncError, fromSystemError, SystemError } from './errno.ts';

/** As node:fs throws it. */
const nodeError = (errno: number, code: string, syscall: string) =>
  Object.assign(new Error(`${code}: ${syscall}`), { errno: -errno, code, syscall });

test('each errno that a caller can act on has its code, and the message names thing and cause', () => {
  const codes = {
    ResourceExhausted: [ERRNO.ENOSPC, ERRNO.EDQUOT],
    NotFound: [ERRNO.ENOENT],
    AlreadyExists: [ERRNO.EEXIST],
    PermissionDenied: [ERRNO.EACCES, ERRNO.EPERM],
    FailedPrecondition: [ERRNO.EROFS],
    Internal: [ERRNO.EIO, ERRNO.ENOTDIR],
  };
  for (const [code, errnos] of Object.entries(codes)) {
    for (const errno of errnos) {
      const error = fromSystemError(new SystemError(errno, 'write'), 'writing "/a"');
      expect(error).toBeInstanceOf(OpError);
      expect(error).toMatchObject({ code });
      expect(error.message).toMatch(/^writing "\/a": .* \(E[A-Z]+\)/);
    }
  }
});

test('a quota met by node:fs, which has no name for it, is an exhausted resource', () => {
  const error = fromSystemError(nodeError(ERRNO.EDQUOT, 'UNKNOWN', 'write'), 'writing "/a"');
  expect(isOpError(error, 'ResourceExhausted')).toBe(true);
  expect(error.message).toContain('disk quota exceeded (EDQUOT)');
});

test('errors that are no system errors come back as they are', () => {
  const defect = new TypeError('x is not a function');
  expect(fromSystemError(defect, 'writing')).toBe(defect);
  const refused = new OpError('Canceled', 'the caller gave up');
  expect(fromSystemError(refused, 'writing')).toBe(refused);
});

test('a failed sync is fatal unless the disk is merely full', () => {
  expect(fromSyncError(nodeError(ERRNO.EIO, 'EIO', 'fdatasync'), 'syncing "/a"')).toBeInstanceOf(
    SyncFailure,
  );
  const full = fromSyncError(nodeError(ERRNO.ENOSPC, 'ENOSPC', 'fdatasync'), 'syncing "/a"');
  expect(isOpError(full, 'ResourceExhausted')).toBe(true);
  const notThere = fromSyncError(nodeError(ERRNO.ENOENT, 'ENOENT', 'open'), 'syncing "/a"');
  expect(isOpError(notThere, 'NotFound')).toBe(true);
});
