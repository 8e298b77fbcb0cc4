import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { OpError, quote } from '../../base/errors.ts';
import type { Linux } from '../platform.ts';
import { DT, readDirectory } from './directory.ts';
import { ERRNO, fromSyncError, fromSystemError, isErrno, SystemError } from './errno.ts';
import { libc } from './ffi.ts';
import { close, cstring, O, open, syncfs } from './files.ts';
import { mountOf } from './mount-of.ts';

/** linux/mount.h */
const FSCONFIG = { setFlag: 0, setString: 1, create: 6 } as const;
const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;

/** What a kernel or a sandbox answers that refuses this mount, rather than failing at it. */
const REFUSALS: readonly number[] = [
  ERRNO.EINVAL,
  ERRNO.EPERM,
  ERRNO.EACCES,
  ERRNO.ENODEV,
  ERRNO.ENOSYS,
  ERRNO.EOPNOTSUPP,
  ERRNO.ENXIO,
  ERRNO.ELOOP,
  ERRNO.EXDEV,
];

/** The first call loads the binding. */
export const createLinux = (): Linux => ({
  syncfs: flush,
  supportsDType,
  mountOf,
  canMountOverlay,
});

function flush(path: string): void {
  try {
    onDirectory(path, syncfs);
  } catch (error) {
    throw fromSyncError(error, `flushing the file system of ${quote(path)}`);
  }
}

/**
 * `.` and `..` have a type on every file system, so something else is looked at: what is there, which
 * takes no room, or a directory of our own.
 */
function supportsDType(directory: string): boolean {
  try {
    let known: boolean | undefined;
    onDirectory(directory, (fd) =>
      readDirectory(fd, (_name, type) => {
        known = type !== DT.unknown;
        return false;
      }),
    );
    if (known !== undefined) return known;
    const probe = mkdtempSync(join(directory, '.d-type-'));
    try {
      mkdirSync(join(probe, 'directory'));
      return onDirectory(probe, (fd) => readDirectory(fd, (_name, type) => type === DT.directory));
    } finally {
      rmSync(probe, { recursive: true });
    }
  } catch (error) {
    throw fromSystemError(error, `probing directory ${quote(directory)}`);
  }
}

/**
 * A file system made by fsmount(2) is attached nowhere until move_mount(2): it is in no mount table and
 * gone with its descriptor.
 * @throws OpError where it is not the kernel that says no, such as NotFound for a directory
 */
function canMountOverlay(probe: Parameters<Linux['canMountOverlay']>[0]): boolean {
  let context = -1;
  try {
    context = check(libc().fsopen(cstring('overlay'), FSOPEN_CLOEXEC), 'fsopen');
    setString(context, 'lowerdir', probe.lower);
    setString(context, 'upperdir', probe.upper);
    setString(context, 'workdir', probe.work);
    for (const option of probe.options) setOption(context, option);
    check(libc().fsconfig(context, FSCONFIG.create, null, null), 'fsconfig');
    close(check(libc().fsmount(context, FSMOUNT_CLOEXEC, 0), 'fsmount'));
    return true;
  } catch (error) {
    if (isErrno(error, ...REFUSALS)) return false;
    throw fromSystemError(error, `probing an overlay mount on ${quote(probe.upper)}`);
  } finally {
    if (context >= 0) close(context);
  }
}

function setOption(context: number, option: string): void {
  const equals = option.indexOf('=');
  if (equals > 0) return setString(context, option.slice(0, equals), option.slice(equals + 1));
  check(libc().fsconfig(context, FSCONFIG.setFlag, cstring(option), null), 'fsconfig');
}

function setString(context: number, key: string, value: string): void {
  // The kernel copies at most 256 bytes of a value; a longer path would end as "no such directory".
  if (Buffer.byteLength(value) > 255) {
    throw new OpError(
      'FailedPrecondition',
      `path ${quote(value)}: too long to probe; use a shorter root`,
    );
  }
  check(libc().fsconfig(context, FSCONFIG.setString, cstring(key), cstring(value)), 'fsconfig');
}

function onDirectory<T>(path: string, action: (fd: number) => T): T {
  const fd = open(path, O.RDONLY | O.DIRECTORY);
  try {
    return action(fd);
  } finally {
    close(fd);
  }
}

function check(result: number, call: string): number {
  if (result < 0) throw new SystemError(libc().errno(), call);
  return result;
}
