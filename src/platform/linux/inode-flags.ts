import { ERRNO, SystemError } from './errno.ts';
import { libc } from './ffi.ts';

/** linux/fs.h, on machines of 64 bits */
const FS_IOC_GETFLAGS = 0x8008_6601;
const FS_IOC_SETFLAGS = 0x4008_6602;
const FS_NOCOW_FL = 0x0080_0000;

/** What file systems say that know no such flag: they write in place, or always elsewhere. */
const UNKNOWN: readonly number[] = [ERRNO.EOPNOTSUPP, ERRNO.ENOTTY, ERRNO.EINVAL, ERRNO.ENOSYS];

/**
 * Has an empty file written in place from here on, where the file system copies on write otherwise: then
 * writing over what is there needs no room. ioctl_iflags(2)
 */
export function setNoCopyOnWrite(fd: number): void {
  const flags = Buffer.alloc(8);
  for (const request of [FS_IOC_GETFLAGS, FS_IOC_SETFLAGS]) {
    if (libc().ioctl(fd, request, flags) < 0) {
      const errno = libc().errno();
      if (UNKNOWN.includes(errno)) return;
      throw new SystemError(errno, 'ioctl_iflags');
    }
    flags.writeUInt32LE((flags.readUInt32LE(0) | FS_NOCOW_FL) >>> 0, 0);
  }
}
