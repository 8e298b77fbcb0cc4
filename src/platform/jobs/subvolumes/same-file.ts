import type { Bytes } from '../../linux/ffi.ts';
import { close, O, openat, read, readlinkat, TYPE, type Stat } from '../../linux/files.ts';
import { getxattr } from '../../linux/xattr.ts';

const CAPABILITY = Buffer.from('security.capability\0');
const CHUNK_BYTES = 64 * 1024;

/**
 * Whether two files of one name are the same for somebody who compares a layer with its parent, by the
 * rules of containerd's differ, so that figures agree with its own: type, owner, mode, device and
 * capabilities; for all but directories size and modification time, and where that has whole seconds
 * only, as in archives, the content.
 */
export function isSameFile(
  dirfd: number,
  stat: Stat,
  otherDirfd: number,
  other: Stat,
  name: Bytes,
): boolean {
  if (stat.mode !== other.mode || stat.uid !== other.uid || stat.gid !== other.gid) return false;
  if (stat.device !== other.device) return false;
  const type = stat.mode & TYPE.mask;
  if (type !== TYPE.link && !sameCapabilities(dirfd, otherDirfd, name)) return false;
  if (type === TYPE.directory) return true;
  if (stat.size !== other.size || !stat.modified.equals(other.modified)) return false;
  if (stat.modified.readUInt32LE(8) !== 0) return true;
  if (type === TYPE.link) {
    return Buffer.compare(readlinkat(dirfd, name), readlinkat(otherDirfd, name)) === 0;
  }
  return type !== TYPE.file || stat.size === 0 || sameContent(dirfd, otherDirfd, name);
}

function sameCapabilities(dirfd: number, otherDirfd: number, name: Bytes): boolean {
  const [one, two] = [dirfd, otherDirfd].map((fd) => {
    const value = getxattr(pathIn(fd, name), CAPABILITY);
    return value === undefined ? undefined : Buffer.from(value);
  });
  return one === undefined || two === undefined ? one === two : one.equals(two);
}

/** Attributes are read by path only. */
const pathIn = (dirfd: number, name: Bytes): Bytes =>
  Buffer.concat([Buffer.from(`/proc/self/fd/${dirfd}/`), name]);

function sameContent(dirfd: number, otherDirfd: number, name: Bytes): boolean {
  const one = openFile(dirfd, name);
  try {
    const two = openFile(otherDirfd, name);
    try {
      return sameBytes(one, two);
    } finally {
      close(two);
    }
  } finally {
    close(one);
  }
}

function openFile(dirfd: number, name: Bytes): number {
  return openat(dirfd, name, O.RDONLY | O.NOFOLLOW | O.NONBLOCK | O.NOATIME);
}

function sameBytes(one: number, two: number): boolean {
  const [left, right] = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)];
  for (;;) {
    const length = read(one, left);
    if (read(two, right) !== length) return false;
    if (length === 0) return true;
    if (!left.subarray(0, length).equals(right.subarray(0, length))) return false;
  }
}
