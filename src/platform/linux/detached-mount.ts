import { OpError, quote } from '../../base/errors.ts';
import { SystemError } from './errno.ts';
import { libc } from './ffi.ts';
import { close, cstring, O, openat } from './files.ts';

/** linux/mount.h */
const FSCONFIG = { setFlag: 0, setString: 1, create: 6 } as const;
const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const MOUNT_ATTR_RDONLY = 1;

/**
 * Mounts a file system nowhere: what fsmount(2) made is in no mount table until move_mount(2), and gone
 * with its descriptor, which is an open directory.
 * @param options as mount(8) takes them: flags, or KEY=VALUE
 * @param readOnly this mount alone: others of the same file system stay as they are
 * @throws SystemError what the kernel says; OpError FailedPrecondition an option that it would cut
 */
export function mountDetached(type: string, options: readonly string[], readOnly = false): number {
  const context = check(libc().fsopen(cstring(type), FSOPEN_CLOEXEC), 'fsopen');
  try {
    for (const option of options) setOption(context, option);
    check(libc().fsconfig(context, FSCONFIG.create, null, null), 'fsconfig');
    const attributes = readOnly ? MOUNT_ATTR_RDONLY : 0;
    const mount = check(libc().fsmount(context, FSMOUNT_CLOEXEC, attributes), 'fsmount');
    try {
      // The kernel's own descriptor is only for paths; what is open keeps the mount.
      return openat(mount, cstring('.'), O.RDONLY | O.DIRECTORY);
    } finally {
      close(mount);
    }
  } finally {
    close(context);
  }
}

function setOption(context: number, option: string): void {
  const equals = option.indexOf('=');
  if (equals <= 0) {
    check(libc().fsconfig(context, FSCONFIG.setFlag, cstring(option), null), 'fsconfig');
    return;
  }
  const [key, value] = [option.slice(0, equals), option.slice(equals + 1)];
  // The kernel copies at most 256 bytes of a value; a longer path would end as "no such directory".
  if (Buffer.byteLength(value) > 255) {
    throw new OpError('FailedPrecondition', `path ${quote(value)}: too long; use a shorter root`);
  }
  check(libc().fsconfig(context, FSCONFIG.setString, cstring(key), cstring(value)), 'fsconfig');
}

function check(result: number, call: string): number {
  if (result < 0) throw new SystemError(libc().errno(), call);
  return result;
}
