import { OpError, quote } from '../../base/errors.ts';
import { ERRNO, SystemError } from './errno.ts';
import { libc, type Bytes } from './ffi.ts';

/** asm-generic/fcntl.h, as x86-64 and arm64 have them. */
export const O = {
  RDONLY: 0,
  WRONLY: 0o1,
  RDWR: 0o2,
  CREAT: 0o100,
  EXCL: 0o200,
  NONBLOCK: 0o4000,
  DIRECTORY: process.arch === 'arm64' ? 0o40000 : 0o200000,
  NOFOLLOW: process.arch === 'arm64' ? 0o100000 : 0o400000,
  NOATIME: 0o1000000,
  CLOEXEC: 0o2000000,
  PATH: 0o10000000,
} as const;

export const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_REMOVEDIR = 0x200;
const AT_NO_AUTOMOUNT = 0x800;
const AT_EMPTY_PATH = 0x1000;
/** Fails with EXDEV at a mount point, bind mounts of the same file system included. openat2(2) */
const RESOLVE_NO_XDEV = 0x01;
/** No way out of the directory it begins in, by links or `..`. openat2(2) */
const RESOLVE_BENEATH = 0x08;
const SYNC_FILE_RANGE_WRITE = 2;
const SEEK_SET = 0;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

const EMPTY = cstring('');

/**
 * The NUL-terminated bytes of a path.
 * @throws OpError InvalidArgument for a path that holds a NUL itself
 */
export function cstring(path: string): Bytes {
  if (path.includes('\0')) {
    throw new OpError('InvalidArgument', `path ${quote(path)}: holds a NUL character`);
  }
  return Buffer.from(`${path}\0`);
}

function check(result: number, call: string): number {
  if (result < 0) throw new SystemError(libc().errno(), call);
  return result;
}

export function openat(dirfd: number, path: Bytes, flags: number, mode = 0): number {
  for (;;) {
    const fd = libc().openat(dirfd, path, flags | O.CLOEXEC, mode);
    if (fd >= 0) return fd;
    const errno = libc().errno();
    if (errno !== ERRNO.EINTR) throw new SystemError(errno, 'open');
  }
}

export const open = (path: string, flags: number, mode = 0): number =>
  openat(AT_FDCWD, cstring(path), flags, mode);

/** open_how of openat2(2): flags, mode, resolve, each of 64 bits. */
function openHow(flags: number, resolve: number): Bytes {
  const how = new DataView(new ArrayBuffer(24));
  how.setBigUint64(0, BigInt(flags), true);
  how.setBigUint64(16, BigInt(resolve), true);
  return new Uint8Array(how.buffer);
}

const DIRECTORY = O.RDONLY | O.DIRECTORY | O.NOFOLLOW;
const CHILD_DIRECTORY = openHow(DIRECTORY | O.CLOEXEC, RESOLVE_NO_XDEV);
const CHILD_DIRECTORY_UNREAD = openHow(DIRECTORY | O.CLOEXEC | O.NOATIME, RESOLVE_NO_XDEV);

/**
 * Opens a directory for reading, never through a link. That it was read is not recorded, where we may
 * say so: the access time would have to go to the disk at the next sync.
 */
export function openDirectory(path: string): number {
  try {
    return open(path, DIRECTORY | O.NOATIME);
  } catch (error) {
    if (!(error instanceof SystemError) || error.errno !== ERRNO.EPERM) throw error;
    return open(path, DIRECTORY);
  }
}

/** The same for a child, and never into a mount (EXDEV). A link fails with ENOTDIR or ELOOP. */
export function openChildDirectory(dirfd: number, name: Bytes): number {
  let how = CHILD_DIRECTORY_UNREAD;
  for (;;) {
    const fd = libc().openat2(dirfd, name, how);
    if (fd >= 0) return fd;
    const errno = libc().errno();
    if (errno === ERRNO.EPERM && how !== CHILD_DIRECTORY) how = CHILD_DIRECTORY;
    else if (errno !== ERRNO.EAGAIN && errno !== ERRNO.EINTR) throw new SystemError(errno, 'open');
  }
}

const BENEATH = openHow(O.PATH | O.DIRECTORY | O.CLOEXEC, RESOLVE_BENEATH);

/** Opens a directory for its entries, never one outside of `dirfd`, wherever links lead (EXDEV). */
export function openBeneath(dirfd: number, path: Bytes): number {
  for (;;) {
    const fd = libc().openat2(dirfd, path, BENEATH);
    if (fd >= 0) return fd;
    const errno = libc().errno();
    if (errno !== ERRNO.EAGAIN && errno !== ERRNO.EINTR) throw new SystemError(errno, 'open');
  }
}

/** Never throws: what could still fail at close is reported by fsync. */
export function close(fd: number): void {
  libc().close(fd);
}

export const read = (fd: number, data: Bytes): number =>
  check(libc().read(fd, data, data.length), 'read');

/** Writes all of it. */
export function write(fd: number, data: Bytes): void {
  let rest = data;
  while (rest.length > 0) {
    const written = libc().write(fd, rest, rest.length);
    if (written >= 0) rest = rest.subarray(written);
    else if (libc().errno() !== ERRNO.EINTR) throw new SystemError(libc().errno(), 'write');
  }
}

export const ftruncate = (fd: number, size: number): number =>
  check(libc().ftruncate(fd, size), 'ftruncate');

export const seek = (fd: number, offset: number): number =>
  check(libc().lseek(fd, offset, SEEK_SET), 'lseek');

/** The first offset from here that holds data; undefined when only a hole follows. */
export function seekData(fd: number, offset: number): number | undefined {
  const found = libc().lseek(fd, offset, SEEK_DATA);
  if (found >= 0) return found;
  if (libc().errno() === ERRNO.ENXIO) return undefined;
  throw new SystemError(libc().errno(), 'lseek');
}

/** The first offset from here that is in a hole; the end of the file counts as one. */
export const seekHole = (fd: number, offset: number): number =>
  check(libc().lseek(fd, offset, SEEK_HOLE), 'lseek');

/** @returns 0 or the errno; what it means depends on the caller's other ways to copy. ioctl_ficlone(2) */
export const ficlone = (to: number, from: number): number =>
  libc().ficlone(to, from) < 0 ? libc().errno() : 0;

/** Copies at both files' positions. @returns bytes copied, or the errno as a negative number */
export function copyFileRange(from: number, to: number, length: number): number {
  const copied = libc().copyFileRange(from, to, length);
  return copied < 0 ? -libc().errno() : copied;
}

/** For unshare(2): the thread's umask and working directory are its own from now on. linux/sched.h */
const CLONE_FS = 0x200;

/**
 * From now on what this thread makes has just the mode it asks for; other threads keep the umask of the
 * process. Nothing happens where a sandbox does not let it.
 */
export function dropUmask(): void {
  if (libc().unshare(CLONE_FS) === 0) libc().umask(0);
}

export const mkdirat = (dirfd: number, name: Bytes, mode: number): number =>
  check(libc().mkdirat(dirfd, name, mode), 'mkdir');

export const mknodat = (dirfd: number, name: Bytes, mode: number, device: number): number =>
  check(libc().mknodat(dirfd, name, mode, device), 'mknod');

export const linkat = (from: number, path: Bytes, to: number, name: Bytes): number =>
  check(libc().linkat(from, path, to, name, 0), 'link');

export const symlinkat = (target: Bytes, dirfd: number, name: Bytes): number =>
  check(libc().symlinkat(target, dirfd, name), 'symlink');

/** The target, NUL-terminated. */
export function readlinkat(dirfd: number, name: Bytes): Bytes {
  const target = Buffer.alloc(4097);
  const length = check(libc().readlinkat(dirfd, name, target, 4096), 'readlink');
  return target.subarray(0, length + 1);
}

/** @returns 0 or the errno: a remover meets many kinds of failure and decides by them. */
export const unlinkat = (dirfd: number, name: Bytes): number =>
  libc().unlinkat(dirfd, name, 0) < 0 ? libc().errno() : 0;

/** @returns 0 or the errno */
export const rmdirat = (dirfd: number, name: Bytes): number =>
  libc().unlinkat(dirfd, name, AT_REMOVEDIR) < 0 ? libc().errno() : 0;

export const renameat = (from: number, path: Bytes, to: number, name: Bytes): number =>
  check(libc().renameat(from, path, to, name), 'rename');

export const fchmod = (fd: number, mode: number): number =>
  check(libc().fchmod(fd, mode), 'fchmod');

/** Follows links. */
export const chmodat = (dirfd: number, name: Bytes, mode: number): number =>
  check(libc().fchmodat(dirfd, name, mode, 0), 'chmod');

/**
 * Never of what a link leads to, whoever puts one in the place of `name` meanwhile; links have no mode of
 * their own and keep theirs. fchmodat(2) alone follows links.
 */
export function lchmodat(dirfd: number, name: Bytes, mode: number): void {
  const fd = openat(dirfd, name, O.PATH | O.NOFOLLOW);
  try {
    if ((new Stat().readOpen(fd).mode & TYPE.mask) === TYPE.link) return;
    chmodat(AT_FDCWD, cstring(`/proc/self/fd/${fd}`), mode);
  } finally {
    close(fd);
  }
}

export const fchown = (fd: number, uid: number, gid: number): number =>
  check(libc().fchownat(fd, EMPTY, uid, gid, AT_EMPTY_PATH), 'fchown');

export const lchownat = (dirfd: number, name: Bytes, uid: number, gid: number): number =>
  check(libc().fchownat(dirfd, name, uid, gid, AT_SYMLINK_NOFOLLOW), 'lchown');

/** `times`: two struct timespec, access then modification; see Stat.times. */
export const futimens = (fd: number, times: Bytes): number =>
  check(libc().futimens(fd, times), 'futimens');

export const lutimensat = (dirfd: number, name: Bytes, times: Bytes): number =>
  check(libc().utimensat(dirfd, name, times, AT_SYMLINK_NOFOLLOW), 'utimensat');

export const syncfs = (fd: number): number => check(libc().syncfs(fd), 'syncfs');
/** On one of libuv's threads. */
export function syncfsAsync(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    libc().syncfsAsync(fd, (errno) => {
      if (errno === 0) resolve();
      else reject(new SystemError(errno, 'syncfs'));
    });
  });
}
/**
 * Begins to write to the disk what a file has from `offset` on, and waits for none of it; the sync that
 * follows tells how it went. sync_file_range(2)
 */
export function startWriteBack(fd: number, offset: number): void {
  libc().syncFileRange(fd, offset, 0, SYNC_FILE_RANGE_WRITE);
}
export const fsync = (fd: number): number => check(libc().fsync(fd), 'fsync');
export const fdatasync = (fd: number): number => check(libc().fdatasync(fd), 'fdatasync');

/** What statx(2) tells. One object is filled again and again: a walk makes none per file. */
export class Stat {
  readonly #bytes = Buffer.alloc(256);
  /** Basic fields only. */
  static readonly #MASK = 0x7ff;
  /** stx_attributes: the root of a mount, which a walk does not enter. */
  static readonly #ATTRIBUTE_MOUNT_ROOT = 0x2000;

  /** Of the link itself, when it is one. */
  readAt(dirfd: number, name: Bytes): this {
    const flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
    check(libc().statx(dirfd, name, flags, Stat.#MASK, this.#bytes), 'statx');
    return this;
  }

  /** @returns false where there is nothing */
  findAt(dirfd: number, name: Bytes): boolean {
    const flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
    if (libc().statx(dirfd, name, flags, Stat.#MASK, this.#bytes) === 0) return true;
    const errno = libc().errno();
    if (errno === ERRNO.ENOENT) return false;
    throw new SystemError(errno, 'statx');
  }

  readOpen(fd: number): this {
    check(libc().statx(fd, EMPTY, AT_EMPTY_PATH, Stat.#MASK, this.#bytes), 'statx');
    return this;
  }

  get isMountRoot(): boolean {
    return (this.#bytes.readUInt32LE(8) & Stat.#ATTRIBUTE_MOUNT_ROOT) !== 0;
  }
  /** What the file system allocates at once, in bytes. */
  get blockSize(): number {
    return this.#bytes.readUInt32LE(4);
  }
  get links(): number {
    return this.#bytes.readUInt32LE(16);
  }
  get uid(): number {
    return this.#bytes.readUInt32LE(20);
  }
  get gid(): number {
    return this.#bytes.readUInt32LE(24);
  }
  /** Type and permissions. */
  get mode(): number {
    return this.#bytes.readUInt16LE(28);
  }
  get inode(): number {
    return this.#bytes.readUInt32LE(32) + this.#bytes.readUInt32LE(36) * 2 ** 32;
  }
  get size(): number {
    return this.#bytes.readUInt32LE(40) + this.#bytes.readUInt32LE(44) * 2 ** 32;
  }
  /** Allocated units of 512 bytes. */
  get blocks(): number {
    return this.#bytes.readUInt32LE(48) + this.#bytes.readUInt32LE(52) * 2 ** 32;
  }
  /** Device and inode number: equal for two names of one file. */
  get identity(): string {
    return this.#bytes.toString('latin1', 32, 40) + this.#bytes.toString('latin1', 136, 144);
  }
  /** As mknod(2) takes it: major and minor packed as the C library does. */
  get device(): number {
    const [major, minor] = [this.deviceMajor, this.deviceMinor];
    const low = ((major & 0xfff) << 8) + (minor & 0xff);
    return low + (minor >>> 8) * 2 ** 20 + (major >>> 12) * 2 ** 44;
  }
  get deviceMajor(): number {
    return this.#bytes.readUInt32LE(128);
  }
  get deviceMinor(): number {
    return this.#bytes.readUInt32LE(132);
  }
  /** Modification time: seconds and nanoseconds, as bytes to compare. */
  get modified(): Buffer {
    return Buffer.from(this.#bytes.subarray(112, 124));
  }
  /** Access and modification time as futimens(2) takes them. */
  get times(): Bytes {
    const times = Buffer.alloc(32);
    this.#bytes.copy(times, 0, 64, 76);
    this.#bytes.copy(times, 16, 112, 124);
    return times;
  }
}

/** The S_IFMT part of a mode. inode(7) */
export const TYPE = {
  mask: 0o170000,
  directory: 0o040000,
  file: 0o100000,
  link: 0o120000,
  characterDevice: 0o020000,
  blockDevice: 0o060000,
  fifo: 0o010000,
} as const;
