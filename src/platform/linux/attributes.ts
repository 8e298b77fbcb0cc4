import { ERRNO, SystemError } from './errno.ts';
import type { Bytes } from './ffi.ts';
import {
  fchmod,
  fchown,
  futimens,
  lchmodat,
  lchownat,
  lutimensat,
  TYPE,
  type Stat,
} from './files.ts';
import { getxattr, listxattr, setxattr, type XattrTarget } from './xattr.ts';

const PERMISSIONS = 0o7777;

/** What an inode has beside its contents and extended attributes. */
export interface Attributes {
  /** Type and permissions. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** As futimens(2) takes them. */
  readonly times: Bytes;
}

export const attributesOf = (stat: Stat): Attributes => ({
  mode: stat.mode,
  uid: stat.uid,
  gid: stat.gid,
  times: stat.times,
});

/**
 * @param xattrs sets the extended ones: after the owner, which drops capabilities; before the mode, which
 * goes with an access list. Times come last: everything else changes them.
 */
export function setOpen(fd: number, attributes: Attributes, xattrs: () => void): void {
  fchown(fd, attributes.uid, attributes.gid);
  xattrs();
  fchmod(fd, attributes.mode & PERMISSIONS);
  futimens(fd, attributes.times);
}

/** Of the link itself, when it is one. */
export function setAt(dirfd: number, name: Bytes, attributes: Attributes): void {
  lchownat(dirfd, name, attributes.uid, attributes.gid);
  const isLink = (attributes.mode & TYPE.mask) === TYPE.link;
  if (!isLink) lchmodat(dirfd, name, attributes.mode & PERMISSIONS);
  lutimensat(dirfd, name, attributes.times);
}

/** Failures to set one are ignored, as containerd does, unless the disk is the reason. */
export function copyXattrs(
  from: XattrTarget,
  to: XattrTarget,
  wanted: (name: string) => boolean = () => true,
): void {
  for (const name of listxattr(from)) {
    if (!wanted(Buffer.from(name).toString('latin1', 0, name.length - 1))) continue;
    const value = getxattr(from, name);
    const errno = value === undefined ? 0 : setxattr(to, name, value);
    if (isFatal(errno)) throw new SystemError(errno, 'setxattr');
  }
}

/** Whether a failure to set an attribute is the disk's, and not that of the attribute. */
export const isFatal = (errno: number): boolean => FATAL.includes(errno);

const FATAL: readonly number[] = [ERRNO.ENOSPC, ERRNO.EDQUOT, ERRNO.EIO, ERRNO.EROFS];

/** The calls for attributes of what cannot be opened know no directory descriptors. */
export const pathThrough = (dirfd: number, name: Bytes): Bytes =>
  Buffer.concat([Buffer.from(`/proc/self/fd/${dirfd}/`), name]);
