import { OpError } from '../../base/errors.ts';
import { isFatal } from '../../platform/linux/attributes.ts';
import { ERRNO, SystemError } from '../../platform/linux/errno.ts';
import { cstring, fchmod, fchown, futimens } from '../../platform/linux/files.ts';
import { removexattr, setxattr, type XattrTarget } from '../../platform/linux/xattr.ts';
import { quoteName } from './names.ts';
import type { TarEntry } from './tar-entry.ts';
import type { Inherited } from './tree.ts';

/** Attributes that an image may set; trusted ones are the administrator's, and overlay's. */
const XATTR = /^(?:user|security)\.|^system\.posix_acl_(?:access|default)$/;
const OVERLAY_XATTR = /^user\.overlay\./;
const ACCESS_LIST = cstring('system.posix_acl_access');

/** A small part of an entry: there may be very many. */
export type Times = Pick<TarEntry, 'mtime' | 'atime'>;

/** What an open directory or file has beside its contents. The owner first, as it clears set-id bits and capabilities; times last. */
export function finishOpen(fd: number, entry: TarEntry): void {
  fchown(fd, entry.uid, entry.gid);
  setXattrs(fd, entry);
  fchmod(fd, entry.mode);
  futimens(fd, timesOf(entry));
}

const isRoot = process.geteuid?.() === 0 && process.getegid?.() === 0;

/** The same for a file just made with its mode: most have it and root as owner, and a call not made is 2 % of the time. */
export function finishNew(fd: number, entry: TarEntry, inherited: Inherited): void {
  const isRoots = isRoot && inherited === 'nothing' && entry.uid === 0 && entry.gid === 0;
  if (!isRoots) fchown(fd, entry.uid, entry.gid);
  dropInherited(fd, inherited);
  setXattrs(fd, entry);
  const needsMode = inherited === 'access lists' || (entry.mode & (0o7000 | umask())) !== 0;
  if (needsMode) fchmod(fd, entry.mode);
  futimens(fd, timesOf(entry));
}

/** Takes the access list that a new file, fifo or device got from its directory. */
export function dropInherited(at: XattrTarget, inherited: Inherited): void {
  if (inherited !== 'access lists') return;
  const errno = removexattr(at, ACCESS_LIST);
  if (isFatal(errno)) throw new SystemError(errno, 'removexattr');
}

let known: number | undefined;
/** Of this thread, which drops it, if at all, before it has anything to write. */
const umask = (): number => (known ??= process.umask());

/**
 * What cannot be kept where it is asked for is left out, as containerd does; user attributes need a file.
 * @throws OpError InvalidArgument for what cannot be set
 */
export function setXattrs(at: XattrTarget, entry: TarEntry): void {
  for (const [name, value] of entry.xattrs) {
    if (!XATTR.test(name) || OVERLAY_XATTR.test(name) || name.includes('\0')) continue;
    const isUsers = name.startsWith('user.');
    if (isUsers && entry.type !== 'file' && entry.type !== 'directory') continue;
    const errno = setxattr(at, cstring(name), value);
    if (errno === 0 || errno === ERRNO.EOPNOTSUPP) continue;
    const error = new SystemError(errno, 'setxattr');
    if (isFatal(errno)) throw error;
    throw new OpError(
      'InvalidArgument',
      `attribute ${quoteName(name)} cannot be set: ${error.message}`,
    );
  }
}

/** Access and modification time as futimens(2) takes them. */
export function timesOf({ mtime, atime }: Times): Buffer {
  const times = Buffer.alloc(32);
  [atime ?? mtime, mtime].forEach(({ seconds, nanoseconds }, index) => {
    times.writeBigInt64LE(BigInt(seconds), index * 16);
    times.writeBigInt64LE(BigInt(nanoseconds), index * 16 + 8);
  });
  return times;
}
