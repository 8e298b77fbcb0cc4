import { createRequire } from 'node:module';
import type * as Koffi from 'koffi';

/** A path, name or value handed to the kernel as it is: bytes, paths and names end with a NUL. */
export type Bytes = Uint8Array;

/**
 * libc's calls as C declares them, each blocking. Integers of 64 bits come back as numbers where they
 * are safe ones. A negative result means that `errno()` says why.
 */
export interface Libc {
  openat(dirfd: number, path: Bytes, flags: number, mode: number): number;
  openat2(dirfd: number, path: Bytes, how: Bytes): number;
  openByHandleAt(mountFd: number, handle: Bytes, flags: number): number;
  close(fd: number): number;
  read(fd: number, data: Bytes, length: number): number;
  write(fd: number, data: Bytes, length: number): number;
  lseek(fd: number, offset: number, whence: number): number;
  ftruncate(fd: number, size: number): number;
  getdents64(fd: number, data: Bytes, length: number): number;
  statx(dirfd: number, path: Bytes, flags: number, mask: number, out: Bytes): number;
  mkdirat(dirfd: number, path: Bytes, mode: number): number;
  mknodat(dirfd: number, path: Bytes, mode: number, device: number): number;
  linkat(from: number, path: Bytes, to: number, name: Bytes, flags: number): number;
  symlinkat(target: Bytes, dirfd: number, path: Bytes): number;
  readlinkat(dirfd: number, path: Bytes, data: Bytes, length: number): number;
  unlinkat(dirfd: number, path: Bytes, flags: number): number;
  renameat(from: number, path: Bytes, to: number, name: Bytes): number;
  fchmod(fd: number, mode: number): number;
  fchmodat(dirfd: number, path: Bytes, mode: number, flags: number): number;
  fchownat(dirfd: number, path: Bytes, uid: number, gid: number, flags: number): number;
  futimens(fd: number, times: Bytes): number;
  utimensat(dirfd: number, path: Bytes, times: Bytes, flags: number): number;
  syncfs(fd: number): number;
  /** Runs on a thread of libuv; `done` is called on ours, with 0 or the errno. */
  syncfsAsync(fd: number, done: (errno: number) => void): void;
  fsync(fd: number): number;
  fdatasync(fd: number): number;
  syncFileRange(fd: number, offset: number, length: number, flags: number): number;
  ficlone(to: number, from: number): number;
  copyFileRange(from: number, to: number, length: number): number;
  clockGettime(clock: number, time: Bytes): number;
  unshare(flags: number): number;
  umask(mask: number): number;
  /** `_exit`: nothing is flushed or torn down. */
  exit(status: number): void;
  /** For requests whose argument is a structure in memory. */
  ioctl(fd: number, request: number, data: Bytes): number;
  /**
   * The same on a thread of libuv's, for calls that several must wait in at once: resolves with 0, or
   * with the errno. `data` must stay as it is until then.
   */
  ioctlAside(fd: number, request: number, data: Bytes): Promise<number>;
  flistxattr(fd: number, data: Bytes, length: number): number;
  fgetxattr(fd: number, name: Bytes, data: Bytes, length: number): number;
  fsetxattr(fd: number, name: Bytes, data: Bytes, length: number): number;
  fremovexattr(fd: number, name: Bytes): number;
  lremovexattr(path: Bytes, name: Bytes): number;
  llistxattr(path: Bytes, data: Bytes, length: number): number;
  lgetxattr(path: Bytes, name: Bytes, data: Bytes, length: number): number;
  lsetxattr(path: Bytes, name: Bytes, data: Bytes, length: number): number;
  mount(source: Bytes, target: Bytes, type: Bytes, flags: number, data: Bytes): number;
  umount2(target: Bytes, flags: number): number;
  fsopen(type: Bytes, flags: number): number;
  fsconfig(fd: number, command: number, key: Bytes | null, value: Bytes | null): number;
  fsmount(fd: number, flags: number, attributes: number): number;
  errno(): number;
}

/** From asm-generic/unistd.h: numbers shared by every architecture for calls newer than 2019. */
const SYS = { fsopen: 430, fsconfig: 431, fsmount: 432, openat2: 437 } as const;

/** linux/fs.h: _IOW(0x94, 9, int) */
const FICLONE = 0x4004_9409;

/** Calls that wait aside at once: as many as koffi keeps memory for. */
const ASIDE_MAX = 32;

const require = createRequire(import.meta.url);
let loaded: Libc | undefined;
let library: Koffi.LibraryHandle | undefined;

/** This process as a library. Each call that waits aside has memory, which is else mapped anew for all but eight. */
export function loadLibrary(): Koffi.LibraryHandle {
  if (library !== undefined) return library;
  const koffi: typeof Koffi = require('koffi');
  koffi.config({ ...koffi.config(), resident_async_pools: ASIDE_MAX });
  library = koffi.load(null);
  return library;
}

/** One that a system may have; undefined where it does not. */
export function loadSystemLibrary(name: string): Koffi.LibraryHandle | undefined {
  const koffi: typeof Koffi = require('koffi');
  // After the first library koffi takes no settings any more.
  loadLibrary();
  try {
    return koffi.load(name);
  } catch {
    return undefined;
  }
}

/**
 * The C library of this process. The first call in a thread loads the binding (6 ms, some megabytes), so
 * a thread that makes no call pays nothing.
 */
export function libc(): Libc {
  loaded ??= bind(require('koffi'));
  return loaded;
}

function bind(koffi: typeof Koffi): Libc {
  const c = loadLibrary();
  // One C function under several prototypes: the arguments of syscall(2) depend on its number.
  const openat2 = c.func('syscall', 'long', ['long', 'int', 'void*', 'void*', 'size_t']);
  const fsopen = c.func('syscall', 'long', ['long', 'void*', 'uint']);
  const fsconfig = c.func('syscall', 'long', ['long', 'int', 'uint', 'void*', 'void*', 'int']);
  const fsmount = c.func('syscall', 'long', ['long', 'int', 'uint', 'uint']);
  const ioctl = c.func('ioctl', 'int', ['int', 'ulong', 'long']);
  const ioctlOn = c.func('ioctl', 'int', ['int', 'ulong', 'void*']);
  const copyRange = c.func(
    'intptr_t copy_file_range(int, void*, int, void*, size_t, unsigned int)',
  );
  const syncfs = c.func('int syncfs(int)');
  const fset = c.func('int fsetxattr(int, void*, void*, size_t, int)');
  const lset = c.func('int lsetxattr(void*, void*, void*, size_t, int)');
  return {
    ...bindFileCalls(c),
    openat2: (dirfd, path, how) => openat2(SYS.openat2, dirfd, path, how, how.length),
    syncfs,
    // koffi hands the call's errno over to this thread just before it calls back.
    syncfsAsync: (fd, done) =>
      syncfs.async(fd, (_error: unknown, result: number) => done(result < 0 ? koffi.errno() : 0)),
    ficlone: (to, from) => ioctl(to, FICLONE, from),
    ioctl: (fd, request, data) => ioctlOn(fd, request, data),
    ioctlAside: (fd, request, data) =>
      new Promise((resolve, reject) => {
        // The errno of the other thread is handed to this callback, and to nobody later.
        ioctlOn.async(fd, request, data, (error: unknown, result: number) => {
          if (error) reject(error instanceof Error ? error : new Error('ioctl was not called'));
          else resolve(result < 0 ? koffi.errno() : 0);
        });
      }),
    copyFileRange: (from, to, length) => copyRange(from, null, to, null, length, 0),
    flistxattr: c.func('intptr_t flistxattr(int, void*, size_t)'),
    fgetxattr: c.func('intptr_t fgetxattr(int, void*, void*, size_t)'),
    fsetxattr: (fd, name, data, length) => fset(fd, name, data, length, 0),
    fremovexattr: c.func('int fremovexattr(int, void*)'),
    lremovexattr: c.func('int lremovexattr(void*, void*)'),
    llistxattr: c.func('intptr_t llistxattr(void*, void*, size_t)'),
    lgetxattr: c.func('intptr_t lgetxattr(void*, void*, void*, size_t)'),
    lsetxattr: (path, name, data, length) => lset(path, name, data, length, 0),
    mount: c.func('int mount(void*, void*, void*, ulong, void*)'),
    umount2: c.func('int umount2(void*, int)'),
    fsopen: (type, flags) => fsopen(SYS.fsopen, type, flags),
    fsconfig: (fd, command, key, value) => fsconfig(SYS.fsconfig, fd, command, key, value, 0),
    fsmount: (fd, flags, attributes) => fsmount(SYS.fsmount, fd, flags, attributes),
    errno: () => koffi.errno(),
  };
}

function bindFileCalls(c: Koffi.LibraryHandle) {
  return {
    openat: c.func('int openat(int, void*, int, uint)'),
    openByHandleAt: c.func('int open_by_handle_at(int, void*, int)'),
    close: c.func('int close(int)'),
    read: c.func('intptr_t read(int, void*, size_t)'),
    write: c.func('intptr_t write(int, void*, size_t)'),
    lseek: c.func('int64_t lseek(int, int64_t, int)'),
    ftruncate: c.func('int ftruncate(int, int64_t)'),
    getdents64: c.func('intptr_t getdents64(int, void*, size_t)'),
    statx: c.func('int statx(int, void*, int, uint, void*)'),
    mkdirat: c.func('int mkdirat(int, void*, uint)'),
    mknodat: c.func('int mknodat(int, void*, uint, uint64_t)'),
    linkat: c.func('int linkat(int, void*, int, void*, int)'),
    symlinkat: c.func('int symlinkat(void*, int, void*)'),
    readlinkat: c.func('intptr_t readlinkat(int, void*, void*, size_t)'),
    unlinkat: c.func('int unlinkat(int, void*, int)'),
    renameat: c.func('int renameat(int, void*, int, void*)'),
    fchmod: c.func('int fchmod(int, uint)'),
    fchmodat: c.func('int fchmodat(int, void*, uint, int)'),
    fchownat: c.func('int fchownat(int, void*, uint, uint, int)'),
    clockGettime: c.func('int clock_gettime(int, void*)'),
    unshare: c.func('int unshare(int)'),
    umask: c.func('uint umask(uint)'),
    exit: c.func('void _exit(int)'),
    futimens: c.func('int futimens(int, void*)'),
    utimensat: c.func('int utimensat(int, void*, void*, int)'),
    fsync: c.func('int fsync(int)'),
    fdatasync: c.func('int fdatasync(int)'),
    syncFileRange: c.func('int sync_file_range(int, int64_t, int64_t, uint)'),
  };
}
