import { ERRNO, SystemError } from './errno.ts';
import { libc, type Bytes } from './ffi.ts';

/** XATTR_LIST_MAX and XATTR_SIZE_MAX: what the kernel hands out at most. */
const LIST_BYTES = 64 * 1024;
const VALUE_BYTES = 64 * 1024;

let list: Buffer | undefined;
let value: Buffer | undefined;

/** Where attributes are: an open file, or a path whose last part is not followed. */
export type XattrTarget = number | Bytes;

/** Names, each NUL-terminated; none where the file system has no attributes. */
export function listxattr(target: XattrTarget): Bytes[] {
  list ??= Buffer.alloc(LIST_BYTES);
  const length =
    typeof target === 'number'
      ? libc().flistxattr(target, list, LIST_BYTES)
      : libc().llistxattr(target, list, LIST_BYTES);
  if (length < 0) {
    if (libc().errno() === ERRNO.EOPNOTSUPP) return [];
    throw new SystemError(libc().errno(), 'listxattr');
  }
  const names: Bytes[] = [];
  for (let start = 0; start < length;) {
    const end = list.indexOf(0, start) + 1;
    names.push(Buffer.from(list.subarray(start, end)));
    start = end;
  }
  return names;
}

/** The value, valid until the next call; undefined when there is none, or none that we may see. */
export function getxattr(target: XattrTarget, name: Bytes): Bytes | undefined {
  value ??= Buffer.alloc(VALUE_BYTES);
  const length =
    typeof target === 'number'
      ? libc().fgetxattr(target, name, value, VALUE_BYTES)
      : libc().lgetxattr(target, name, value, VALUE_BYTES);
  if (length >= 0) return value.subarray(0, length);
  const errno = libc().errno();
  if (HIDDEN.includes(errno)) return undefined;
  throw new SystemError(errno, 'getxattr');
}

const HIDDEN: readonly number[] = [ERRNO.ENODATA, ERRNO.EOPNOTSUPP, ERRNO.EPERM, ERRNO.EACCES];

/** @returns 0 or the errno */
export function setxattr(target: XattrTarget, name: Bytes, data: Bytes): number {
  const result =
    typeof target === 'number'
      ? libc().fsetxattr(target, name, data, data.length)
      : libc().lsetxattr(target, name, data, data.length);
  return result < 0 ? libc().errno() : 0;
}

/** @returns 0 or the errno */
export function removexattr(target: XattrTarget, name: Bytes): number {
  const result =
    typeof target === 'number'
      ? libc().fremovexattr(target, name)
      : libc().lremovexattr(target, name);
  return result < 0 ? libc().errno() : 0;
}
