import { isUtf8 } from 'node:buffer';
import { OpError } from '../../base/errors.ts';
import { getxattr, listxattr, type XattrTarget } from '../../platform/linux/xattr.ts';

/** What a layer carries; trusted ones are the administrator's, and overlayfs's. */
const CARRIED = /^(?:user|security)\.|^system\.posix_acl_(?:access|default)$/;
/** Marks of an overlayfs, and what the policies and keys of this machine make of a file. */
const LOCAL = /^user\.overlay\.|^security\.(?:selinux|SMACK64|apparmor|ima$|evm$)/;

/** Other names have no place in a PAX record: its keyword is UTF-8, and ends with the first equals sign. */
const isKeyword = (name: string): boolean =>
  !name.includes('=') && isUtf8(Buffer.from(name, 'latin1'));

/** Values by name, as latin1; sorted by name. */
export type Xattrs = ReadonlyMap<string, Buffer>;

const NONE: Xattrs = new Map();

/** What is to be known of a name's attributes. */
export interface Attributes {
  readonly carried: Xattrs;
  /** The directory hides what layers below have under its name. */
  readonly isOpaque: boolean;
}

/**
 * Reads the attributes of a file.
 * @param marks the prefix of overlayfs's attributes in an upper directory; elsewhere there are none
 * @throws OpError FailedPrecondition: the directory needs overlayfs to be understood
 */
export function attributesAt(target: XattrTarget, marks: string | undefined): Attributes {
  const names = listxattr(target).map((name) =>
    Buffer.from(name).toString('latin1', 0, name.length - 1),
  );
  const isOpaque = marks !== undefined && readMarks(target, names, marks);
  const carried = names.filter(isCarried).toSorted();
  return { carried: carried.length === 0 ? NONE : readAll(target, carried), isOpaque };
}

const isCarried = (name: string): boolean =>
  CARRIED.test(name) && !LOCAL.test(name) && isKeyword(name);

function readAll(target: XattrTarget, names: readonly string[]): Xattrs {
  const values = new Map<string, Buffer>();
  for (const name of names) {
    const value = getxattr(target, cstring(name));
    // Removed meanwhile, or not for us to see.
    if (value !== undefined) values.set(name, Buffer.from(value));
  }
  return values;
}

/** With these the contents of a name are in another layer, under another name, or nowhere. */
const INDIRECT: readonly string[] = ['metacopy', 'redirect', 'whiteout'];

/** @returns whether the directory is opaque. Documentation/filesystems/overlayfs.rst */
function readMarks(target: XattrTarget, names: readonly string[], marks: string): boolean {
  const indirect = INDIRECT.find((mark) => names.includes(`${marks}${mark}`));
  if (indirect !== undefined) {
    throw new OpError(
      'FailedPrecondition',
      `has the mark ${marks}${indirect}; mount snapshots with metacopy=off,redirect_dir=off`,
    );
  }
  const opaque = `${marks}opaque`;
  if (!names.includes(opaque)) return false;
  return getxattr(target, cstring(opaque))?.[0] === YES;
}

const YES = 'y'.charCodeAt(0);

const cstring = (name: string): Buffer => Buffer.from(`${name}\0`, 'latin1');

export function areSame(a: Xattrs, b: Xattrs): boolean {
  if (a.size !== b.size) return false;
  for (const [name, value] of a) if (b.get(name)?.equals(value) !== true) return false;
  return true;
}
