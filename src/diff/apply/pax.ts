import { isUtf8 } from 'node:buffer';
import { copyOf, decimal, parseRecords, time, type PaxValues, type Time } from './pax-records.ts';
import { sparseOf, type PaxSparse } from './pax-sparse.ts';
import { TarFault } from './tar-fault.ts';

/** What extended headers say of the next entry. Where they say nothing, its own header counts. */
export interface Pax {
  readonly path?: Buffer | undefined;
  readonly linkPath?: Buffer | undefined;
  readonly size?: number | undefined;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  readonly mtime?: Time | undefined;
  readonly atime?: Time | undefined;
  readonly xattrs: ReadonlyMap<string, Buffer>;
  readonly sparse?: PaxSparse | undefined;
}

const NONE: ReadonlyMap<string, Buffer> = new Map();
export const NO_PAX: Pax = { xattrs: NONE };

/**
 * The records of an extended header. POSIX pax, "pax Extended Header"; attributes as star writes them
 * (SCHILY.xattr). Owner names, charset, LIBARCHIVE.* and unknown keys are passed over, as containerd does.
 * Keeps nothing of the body.
 * @throws TarFault a record that is malformed; a value that is none for its key
 */
export function parsePax(body: Buffer): Pax {
  const records = parseRecords(body);
  const { values } = records;
  return {
    path: copyOf(values.get('path')),
    linkPath: copyOf(values.get('linkpath')),
    size: decimal(values, 'size'),
    uid: decimal(values, 'uid'),
    gid: decimal(values, 'gid'),
    mtime: time(values, 'mtime'),
    atime: time(values, 'atime'),
    xattrs: xattrsOf(values),
    sparse: sparseOf(records),
  };
}

const XATTR = 'SCHILY.xattr.';

/** Here an empty value is one. */
function xattrsOf(values: PaxValues): ReadonlyMap<string, Buffer> {
  let xattrs: Map<string, Buffer> | undefined;
  for (const [key, value] of values) {
    if (!key.startsWith(XATTR)) continue;
    const name = Buffer.from(key.slice(XATTR.length), 'latin1');
    if (name.length === 0) throw new TarFault('it has an extended attribute without a name');
    if (!isUtf8(name)) throw new TarFault('it has an extended attribute whose name is not UTF-8');
    xattrs ??= new Map();
    xattrs.set(name.toString(), Buffer.from(value));
  }
  return xattrs ?? NONE;
}
