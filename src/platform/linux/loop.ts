// Loop devices: linux/loop.h
import { createHash } from 'node:crypto';
import { ERRNO, isErrno, SystemError } from './errno.ts';
import { libc, type Bytes } from './ffi.ts';
import { close, O, open } from './files.ts';

const IOCTL = {
  clearFd: 0x4c01,
  getStatus64: 0x4c05,
  configure: 0x4c0a,
  controlGetFree: 0x4c82,
} as const;

/** struct loop_config around struct loop_info64, offsets in bytes. */
const CONFIG = { fd: 0, info: 8, size: 304 } as const;
const INFO = { flags: 52, fileName: 56, fileNameSize: 64, size: 232 } as const;
const LO_FLAGS = { readOnly: 1, autoclear: 4, directIo: 16 } as const;

export interface LoopOptions {
  readonly readOnly: boolean;
  readonly directIo: boolean;
  /** The kernel frees it when the last who has it open, or mounted, goes. */
  readonly autoclear: boolean;
}

/** Others may take the free device first. */
const TRIES = 100;

/**
 * Attaches a file to a free loop device.
 * @param name whoever frees the device recognizes it by this
 * @returns the device's path, and the open device
 */
export function attachLoop(
  file: string,
  name: string,
  options: LoopOptions,
): { readonly path: string; readonly fd: number } {
  const backing = open(file, options.readOnly ? O.RDONLY : O.RDWR);
  try {
    const config = configOf(backing, name, options);
    for (let tries = 1; ; tries++) {
      const path = `/dev/loop${freeDevice()}`;
      const fd = open(path, options.readOnly ? O.RDONLY : O.RDWR);
      if (libc().ioctl(fd, IOCTL.configure, config) === 0) return { path, fd };
      const errno = libc().errno();
      close(fd);
      if (errno !== ERRNO.EBUSY || tries === TRIES) throw new SystemError(errno, 'LOOP_CONFIGURE');
    }
  } finally {
    close(backing);
  }
}

/** Whether the device was attached under this name. */
export function isLoopNamed(path: string, name: string): boolean {
  return onDevice(path, false, (fd) => nameAt(fd) === textOf(tagOf(name)));
}

/**
 * Frees the device if it was attached under this name: its number may be another's by now. While it is in
 * use it goes with the last user.
 */
export function detachLoop(path: string, name: string): void {
  onDevice(path, undefined, (fd) => {
    if (nameAt(fd) !== textOf(tagOf(name))) return;
    call(fd, IOCTL.clearFd, Buffer.alloc(8), 'LOOP_CLR_FD');
  });
}

function onDevice<T>(path: string, absent: T, action: (fd: number) => T): T {
  let fd: number;
  try {
    fd = open(path, O.RDONLY);
  } catch (error) {
    if (isErrno(error, ERRNO.ENOENT, ERRNO.ENXIO)) return absent;
    throw error;
  }
  try {
    return action(fd);
  } finally {
    close(fd);
  }
}

function freeDevice(): number {
  const control = open('/dev/loop-control', O.RDWR);
  try {
    const device = libc().ioctl(control, IOCTL.controlGetFree, Buffer.alloc(8));
    if (device < 0) throw new SystemError(libc().errno(), 'LOOP_CTL_GET_FREE');
    return device;
  } finally {
    close(control);
  }
}

function configOf(backing: number, name: string, options: LoopOptions): Bytes {
  const config = Buffer.alloc(CONFIG.size);
  config.writeUInt32LE(backing, CONFIG.fd);
  const flags =
    (options.readOnly ? LO_FLAGS.readOnly : 0) |
    (options.autoclear ? LO_FLAGS.autoclear : 0) |
    (options.directIo ? LO_FLAGS.directIo : 0);
  config.writeUInt32LE(flags, CONFIG.info + INFO.flags);
  tagOf(name).copy(config, CONFIG.info + INFO.fileName);
  return config;
}

/** undefined for a device that is free. */
function nameAt(fd: number): string | undefined {
  const info = Buffer.alloc(INFO.size);
  if (libc().ioctl(fd, IOCTL.getStatus64, info) < 0) {
    const errno = libc().errno();
    if (errno === ERRNO.ENXIO) return undefined;
    throw new SystemError(errno, 'LOOP_GET_STATUS64');
  }
  return textOf(info.subarray(INFO.fileName, INFO.fileName + INFO.fileNameSize));
}

/** A field of 64 bytes is shorter than many a path. */
const tagOf = (name: string): Buffer =>
  Buffer.from(`ballast-${createHash('sha256').update(name).digest('hex').slice(0, 40)}`);

const textOf = (bytes: Buffer): string => bytes.toString('latin1').replace(/\0.*$/s, '');

function call(fd: number, request: number, data: Bytes, name: string): void {
  if (libc().ioctl(fd, request, data) < 0) throw new SystemError(libc().errno(), name);
}
