import { OpError } from '../../base/errors.ts';
import { ERRNO, SystemError } from './errno.ts';
import { libc } from './ffi.ts';
import { cstring } from './files.ts';

/** linux/mount.h */
const MS = {
  rdonly: 0x1,
  nosuid: 0x2,
  nodev: 0x4,
  noexec: 0x8,
  synchronous: 0x10,
  remount: 0x20,
  mandlock: 0x40,
  dirsync: 0x80,
  noatime: 0x400,
  nodiratime: 0x800,
  bind: 0x1000,
  rec: 0x4000,
  private: 0x4_0000,
  relatime: 0x20_0000,
  strictatime: 0x100_0000,
} as const;

/** fstab(5): the flags that an option sets, or takes away. All others are the file system's own. */
const FLAGS: ReadonlyMap<string, { readonly set?: number; readonly clear?: number }> = new Map([
  ['async', { clear: MS.synchronous }],
  ['atime', { clear: MS.noatime }],
  ['bind', { set: MS.bind }],
  ['defaults', {}],
  ['dev', { clear: MS.nodev }],
  ['diratime', { clear: MS.nodiratime }],
  ['dirsync', { set: MS.dirsync }],
  ['exec', { clear: MS.noexec }],
  ['mand', { set: MS.mandlock }],
  ['noatime', { set: MS.noatime }],
  ['nodev', { set: MS.nodev }],
  ['nodiratime', { set: MS.nodiratime }],
  ['noexec', { set: MS.noexec }],
  ['nomand', { clear: MS.mandlock }],
  ['norelatime', { clear: MS.relatime }],
  ['nostrictatime', { clear: MS.strictatime }],
  ['nosuid', { set: MS.nosuid }],
  ['rbind', { set: MS.bind | MS.rec }],
  ['relatime', { set: MS.relatime }],
  ['ro', { set: MS.rdonly }],
  ['rw', { clear: MS.rdonly }],
  ['strictatime', { set: MS.strictatime }],
  ['suid', { clear: MS.nosuid }],
  ['sync', { set: MS.synchronous }],
]);

/** linux/fs.h */
const UMOUNT_NOFOLLOW = 8;

/** What mount(2) copies of its data, less the NUL. */
const DATA_BYTES_MAX = 4095;

/** A mount's options as mount(2) takes them. */
export function mountArguments(options: readonly string[]): { flags: number; data: string } {
  let flags = 0;
  const data: string[] = [];
  for (const option of options) {
    const known = FLAGS.get(option);
    if (known === undefined) data.push(option);
    else flags = (flags | (known.set ?? 0)) & ~(known.clear ?? 0);
  }
  return { flags, data: data.join(',') };
}

/**
 * mount(2), as mount(8) does it: a bind mount takes its other flags only when it is mounted anew.
 * @throws SystemError, when the caller looks for what is mounted by then; OpError InvalidArgument for options
 * that the kernel would cut
 */
export function mount(
  { type, source, options }: { type: string; source: string; options: readonly string[] },
  point: string,
): void {
  const { flags, data } = mountArguments(options);
  const bytes = Buffer.byteLength(data);
  if (bytes > DATA_BYTES_MAX) {
    throw new OpError(
      'InvalidArgument',
      `options of a mount of type ${type}: ${bytes} bytes, the kernel takes ${DATA_BYTES_MAX}`,
    );
  }
  call(source, point, type, flags, data);
  const isBind = (flags & MS.bind) !== 0;
  if (!isBind || (flags & ~(MS.bind | MS.rec)) === 0) return;
  call('', point, '', flags | MS.remount, '');
}

const call = (source: string, point: string, type: string, flags: number, data: string): void => {
  const result = libc().mount(cstring(source), cstring(point), cstring(type), flags, cstring(data));
  if (result < 0) throw new SystemError(libc().errno(), 'mount');
};

/**
 * From now on what is unmounted in the tree at `point` is unmounted there alone. A bind mount's tree is else
 * one with its source's: with the copy of what is mounted below the source, that itself would go.
 */
export function makePrivate(point: string): void {
  call('', point, '', MS.private | MS.rec, '');
}

/** One that is not there is no error. @throws SystemError, EBUSY while it is in use */
export function unmount(point: string): void {
  if (libc().umount2(cstring(point), UMOUNT_NOFOLLOW) === 0) return;
  const errno = libc().errno();
  if (errno !== ERRNO.EINVAL && errno !== ERRNO.ENOENT) throw new SystemError(errno, 'umount');
}
