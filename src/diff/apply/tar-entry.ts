import { quote } from '../../base/errors.ts';
import type { Extensions } from './extensions.ts';
import type { TarLimits } from './limits.ts';
import type { Time } from './pax-records.ts';
import type { Pax } from './pax.ts';
import { GNU_SPARSE } from './sparse-map.ts';
import { TarFault } from './tar-fault.ts';
import type { Header } from './tar-header.ts';

export type EntryType =
  | 'file'
  | 'directory'
  | 'symlink'
  | 'hardlink'
  | 'character-device'
  | 'block-device'
  | 'fifo';

/** One entry of an archive, as the last of all headers that speak of it has it. Its own for good. */
export interface TarEntry {
  readonly type: EntryType;
  /** Bytes as in the archive: any but NUL, absolute or climbing or empty, with slashes at the end. */
  readonly path: Buffer;
  /** Of a symlink or hard link, as `path`; else empty. */
  readonly linkPath: Buffer;
  /** Permissions, set-id and sticky bits. */
  readonly mode: number;
  /** What chown takes: below 2^32 - 1, which would mean "leave it". */
  readonly uid: number;
  readonly gid: number;
  readonly mtime: Time;
  /** Only PAX has it. */
  readonly atime: Time | undefined;
  /** Of devices, and no more than Linux can count: 12 bits and 20 bits. */
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /** Bytes of a file, with its holes; else 0. */
  readonly size: number;
  /** Of any namespace and any length. */
  readonly xattrs: ReadonlyMap<string, Buffer>;
  /** Of its header in the archive, in bytes. */
  readonly offset: number;
}

/** Of a typeflag that has an entry; "old" files end in a slash where they are directories. */
const TYPES: ReadonlyMap<number, EntryType | 'old-file'> = new Map([
  [0, 'old-file'],
  [0x30, 'file'],
  [0x31, 'hardlink'],
  [0x32, 'symlink'],
  [0x33, 'character-device'],
  [0x34, 'block-device'],
  [0x35, 'directory'],
  [0x36, 'fifo'],
  // Contiguous on disk: to everyone else a file. POSIX pax, "ustar Interchange Format"
  [0x37, 'file'],
  [GNU_SPARSE, 'file'],
]);

const SLASH = 0x2f;
const EMPTY = Buffer.alloc(0);
const ID_MAX = 2 ** 32 - 2;
const DEVICE_MAJOR_MAX = 2 ** 12 - 1;
const DEVICE_MINOR_MAX = 2 ** 20 - 1;

/**
 * Joins what all headers say, as containerd does: a name of sparse records counts before one of GNU's
 * headers, that before one of PAX, and that before the entry's own.
 * @param fileBytes of a file with holes
 * @throws TarFault an unknown type, a number that the kernel would not take, or beyond a limit
 */
export function entryOf(
  header: Header,
  extensions: Extensions,
  { offset, fileBytes }: { readonly offset: number; readonly fileBytes: number | undefined },
  limits: TarLimits,
): TarEntry {
  const { pax } = extensions;
  const path = pax.sparse?.name ?? extensions.longName ?? pax.path ?? header.name;
  const type = typeOf(header, path);
  const isLink = type === 'symlink' || type === 'hardlink';
  const linkPath = isLink ? (extensions.longLink ?? pax.linkPath ?? header.linkName) : EMPTY;
  assertLength(path, 'name', limits);
  assertLength(linkPath, 'link', limits);
  const isDevice = type === 'character-device' || type === 'block-device';
  return {
    type,
    path,
    linkPath,
    mode: within(Number.MAX_SAFE_INTEGER, header.mode, 'mode') % 0o10000,
    uid: within(ID_MAX, pax.uid ?? header.uid, 'uid'),
    gid: within(ID_MAX, pax.gid ?? header.gid, 'gid'),
    mtime: pax.mtime ?? { seconds: header.mtime, nanoseconds: 0 },
    atime: pax.atime,
    deviceMajor: isDevice ? within(DEVICE_MAJOR_MAX, header.deviceMajor, 'device major') : 0,
    deviceMinor: isDevice ? within(DEVICE_MINOR_MAX, header.deviceMinor, 'device minor') : 0,
    size: within(limits.fileBytesMax, fileBytes ?? storedBytesOf(type, header, pax), 'size'),
    xattrs: pax.xattrs,
    offset,
  };
}

/**
 * How many bytes follow the header. Only files have any, whatever size a writer gives a directory or a
 * link: so say POSIX of those two and Go of all others.
 */
export function storedBytesOf(type: EntryType, header: Header, pax: Pax): number {
  if (type !== 'file') return 0;
  return within(Number.MAX_SAFE_INTEGER, pax.size ?? header.size, 'size');
}

function typeOf({ typeFlag }: Header, path: Buffer): EntryType {
  const type = TYPES.get(typeFlag);
  if (type === undefined) {
    throw new TarFault(`it has the unknown type ${quote(String.fromCharCode(typeFlag))}`);
  }
  if (type !== 'old-file') return type;
  return path.at(-1) === SLASH ? 'directory' : 'file';
}

function assertLength({ length }: Buffer, what: string, { pathBytesMax }: TarLimits): void {
  if (length > pathBytesMax) {
    throw new TarFault(`its ${what} has ${length} bytes, more than ${pathBytesMax}`);
  }
}

function within(max: number, value: number, what: string): number {
  if (value < 0 || value > max) {
    throw new TarFault(`its ${what} is ${value}, which is not between 0 and ${max}`);
  }
  return value;
}
