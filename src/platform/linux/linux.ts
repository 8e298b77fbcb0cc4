import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { quote } from '../../base/errors.ts';
import type { Linux } from '../platform.ts';
import { mountDetached } from './detached-mount.ts';
import { DT, readDirectory } from './directory.ts';
import { ERRNO, fromSyncError, fromSystemError, isErrno } from './errno.ts';
import { close, O, open, syncfs } from './files.ts';
import { mountOf } from './mount-of.ts';

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

/** @throws OpError where it is not the kernel that says no, such as NotFound for a directory */
function canMountOverlay(probe: Parameters<Linux['canMountOverlay']>[0]): boolean {
  const { lower, upper, work, options } = probe;
  const paths = [`lowerdir=${lower}`, `upperdir=${upper}`, `workdir=${work}`];
  try {
    close(mountDetached('overlay', [...paths, ...options]));
    return true;
  } catch (error) {
    if (isErrno(error, ...REFUSALS)) return false;
    throw fromSystemError(error, `probing an overlay mount on ${quote(upper)}`);
  }
}

function onDirectory<T>(path: string, action: (fd: number) => T): T {
  const fd = open(path, O.RDONLY | O.DIRECTORY);
  try {
    return action(fd);
  } finally {
    close(fd);
  }
}
