import { TarFault } from './tar-fault.ts';

/** Everything in an archive comes in blocks of so many bytes. */
export const BLOCK_BYTES = 512;

/** One block in front of an entry's bytes, as it is: PAX and GNU headers before it may know better. */
export interface Header {
  readonly dialect: Dialect;
  /** The byte that says what the entry is. */
  readonly typeFlag: number;
  readonly name: Buffer;
  readonly linkName: Buffer;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  /** Seconds since 1970. */
  readonly mtime: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

export type Dialect = 'v7' | 'ustar' | 'star' | 'gnu';

/**
 * Reads the header of POSIX.1-1988 (ustar), GNU tar, star, or the time before them (v7): POSIX pax,
 * "ustar Interchange Format"; GNU tar manual, "Basic Tar Format". Keeps nothing of the block.
 * @returns undefined for a block of zeros
 * @throws TarFault wrong checksum; a field that should be a number is none, or is beyond 2^53
 */
export function parseHeader(block: Buffer): Header | undefined {
  const sum = sumOf(block);
  if (sum === 0) return undefined;
  assertChecksum(block, sum);
  const dialect = dialectOf(block);
  const hasDevice = dialect !== 'v7';
  return {
    dialect,
    typeFlag: block[156] ?? 0,
    name: withPrefix(block, dialect),
    linkName: cstringAt(block, 157, 100),
    mode: numberAt(block, 100, 8, 'mode'),
    uid: numberAt(block, 108, 8, 'uid'),
    gid: numberAt(block, 116, 8, 'gid'),
    size: numberAt(block, 124, 12, 'size'),
    mtime: numberAt(block, 136, 12, 'mtime'),
    deviceMajor: hasDevice ? numberAt(block, 329, 8, 'device major') : 0,
    deviceMinor: hasDevice ? numberAt(block, 337, 8, 'device minor') : 0,
  };
}

const CHECKSUM_AT = 148;
const CHECKSUM_END = 156;
const BLANK = 0x20;

function sumOf(block: Buffer): number {
  let sum = 0;
  for (let at = 0; at < BLOCK_BYTES; at++) sum += block[at] ?? 0;
  return sum;
}

function assertChecksum(block: Buffer, sumOfAll: number): void {
  let sum = sumOfAll;
  // It is taken with blanks in its own place.
  for (let at = CHECKSUM_AT; at < CHECKSUM_END; at++) sum += BLANK - (block[at] ?? 0);
  const stored = numberAt(block, CHECKSUM_AT, 8, 'checksum');
  if (stored !== sum && stored !== sum - 256 * highBytes(block)) {
    throw new TarFault('the checksum of its header is wrong');
  }
}

/** Each counts 256 less where a writer's char is signed, as on old Suns. */
function highBytes(block: Buffer): number {
  let count = 0;
  for (let at = 0; at < BLOCK_BYTES; at++) {
    const isSum = at >= CHECKSUM_AT && at < CHECKSUM_END;
    if (!isSum && (block[at] ?? 0) >= 0x80) count++;
  }
  return count;
}

function dialectOf(block: Buffer): Dialect {
  const magic = block.toString('latin1', 257, 265);
  if (magic === 'ustar  \0') return 'gnu';
  if (!magic.startsWith('ustar\0')) return 'v7';
  return block.toString('latin1', 508, 512) === 'tar\0' ? 'star' : 'ustar';
}

function withPrefix(block: Buffer, dialect: Dialect): Buffer {
  const name = cstringAt(block, 0, 100);
  if (block[345] === 0 || (dialect !== 'ustar' && dialect !== 'star')) return name;
  const prefix = cstringAt(block, 345, dialect === 'star' ? 131 : 155);
  return Buffer.concat([prefix, SLASH, name]);
}

const SLASH = Buffer.from('/');

/** A copy of a field up to its NUL, if it has one. */
function cstringAt(block: Buffer, at: number, length: number): Buffer {
  if (block[at] === 0) return EMPTY;
  return cstring(block.subarray(at, at + length));
}

const EMPTY = Buffer.alloc(0);

/** A copy of the bytes before the first NUL. */
export function cstring(bytes: Buffer): Buffer {
  const end = bytes.indexOf(0);
  return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end));
}

/**
 * A number in a field: octal digits with blanks and NULs around, none of them being 0; or, where the
 * first bit is set, two's complement. GNU tar manual, "Basic Tar Format"
 * @throws TarFault not a number, or beyond 2^53
 */
export function numberAt(block: Buffer, at: number, length: number, what: string): number {
  const isBinary = ((block[at] ?? 0) & 0x80) !== 0;
  const value = isBinary ? binary(block, at, at + length) : octal(block, at, at + length);
  if (value === undefined) throw new TarFault(`its ${what} is no number`);
  if (!Number.isSafeInteger(value)) throw new TarFault(`its ${what} is beyond 2^53`);
  return value;
}

function octal(block: Buffer, start: number, end: number): number | undefined {
  let at = start;
  while (at < end && (block[at] === BLANK || block[at] === 0)) at++;
  let value = 0;
  for (; at < end; at++) {
    const digit = (block[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  while (at < end && block[at] === BLANK) at++;
  return at === end || block[at] === 0 ? value : undefined;
}

/** The second bit is the sign; what is lost beyond 2^53 is still seen to be beyond it. */
function binary(block: Buffer, start: number, end: number): number {
  const isNegative = ((block[start] ?? 0) & 0x40) !== 0;
  const flipped = isNegative ? 0xff : 0;
  let value = ((block[start] ?? 0) ^ flipped) & 0x3f;
  for (let at = start + 1; at < end; at++) value = value * 256 + ((block[at] ?? 0) ^ flipped);
  return isNegative ? -1 - value : value;
}
