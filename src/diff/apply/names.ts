import { quote } from '../../base/errors.ts';
import type { Bytes } from '../../platform/linux/ffi.ts';

/** A file's name or path: bytes as latin1, so that it can be a key and needs to be no valid UTF-8. */
export type Name = string;

/** NUL-terminated, as system calls take it. */
export const bytesOfName = (name: Name): Bytes => Buffer.from(`${name}\0`, 'latin1');

/** As people write it; what is no UTF-8 shows as replacement characters. */
export const quoteName = (name: Name): string =>
  quote(Buffer.from(name, 'latin1').toString('utf8'));
