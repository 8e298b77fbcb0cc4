import type { Name } from '../apply/names.ts';
import type { Time } from '../apply/pax-records.ts';
import type { LayerEntry } from './layer-entry.ts';

export const BLOCK_BYTES = 512;

/** A keyword and its value, both as they are in the archive: bytes, of which latin1 is the text. */
export type PaxRecord = readonly [keyword: string, value: string | Buffer];

/** What one field of a header holds as tar-stream writes it. */
export const FIELD = { name: 100, id: 0o777777, device: 0o777777, time: 2 ** 31 - 1 } as const;
const SIZE_MAX = 8 ** 11 - 1;

const isPrintable = (name: Name): boolean => /^[\x20-\x7e]*$/.test(name);
const fits = (name: Name): boolean => name.length <= FIELD.name && isPrintable(name);

/** Whether a time is one of a header: whole seconds that are no more than 31 bits. */
const isWhole = ({ seconds, nanoseconds }: Time): boolean =>
  nanoseconds === 0 && seconds >= 0 && seconds <= FIELD.time;

/**
 * What an entry has that its own header cannot hold.
 * @param size of the body
 */
export function recordsOf(entry: LayerEntry, size: number): readonly PaxRecord[] {
  const { path, link, uid, gid, mtime } = entry;
  const records: PaxRecord[] = [];
  if (!fits(path)) records.push(['path', path]);
  if (!fits(link)) records.push(['linkpath', link]);
  if (uid > FIELD.id) records.push(['uid', String(uid)]);
  if (gid > FIELD.id) records.push(['gid', String(gid)]);
  if (size > SIZE_MAX) records.push(['size', String(size)]);
  if (!isWhole(mtime)) records.push(['mtime', decimalOf(mtime)]);
  for (const [name, value] of entry.xattrs) records.push([`SCHILY.xattr.${name}`, value]);
  return records;
}

/** A name for readers that know no extended headers. */
export const standIn = (name: Name): string =>
  fits(name) ? name : name.replaceAll(/[^\x20-\x7e]/g, '_').slice(0, FIELD.name);

/** A header with records for the entry behind it, and its padding. POSIX pax, "pax Extended Header" */
export function extendedHeader(records: readonly PaxRecord[]): Buffer {
  const body = Buffer.concat(records.map(recordBytes));
  const padding = Buffer.alloc(paddingOf(body.length));
  const header = ustarHeader({ name: 'PaxHeader', mode: 0o644, type: 'x', size: body.length });
  return Buffer.concat([header, body, padding]);
}

/** Bytes to the end of a block. */
export const paddingOf = (size: number): number =>
  (BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES;

/** "%d %s=%s\n": the length counts all of the record, its own digits too. */
function recordBytes([keyword, value]: PaxRecord): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'latin1') : value;
  const rest = Buffer.concat([Buffer.from(` ${keyword}=`, 'latin1'), bytes, Buffer.from('\n')]);
  let length = rest.length;
  while (rest.length + String(length).length !== length) {
    length = rest.length + String(length).length;
  }
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

/** Seconds with a fraction; before 1970 both count backwards. */
function decimalOf({ seconds, nanoseconds }: Time): string {
  const isBackwards = seconds < 0 && nanoseconds > 0;
  const whole = isBackwards ? seconds + 1 : seconds;
  const fraction = isBackwards ? 1e9 - nanoseconds : nanoseconds;
  const sign = isBackwards && whole === 0 ? '-' : '';
  if (fraction === 0) return String(whole);
  return `${sign}${whole}.${String(fraction).padStart(9, '0').replace(/0+$/, '')}`;
}

export interface UstarHeader {
  /** That fits. */
  readonly name: string;
  readonly mode: number;
  /** The typeflag. */
  readonly type: string;
  readonly size: number;
  readonly uid?: number;
  readonly gid?: number;
  /** In seconds. */
  readonly mtime?: number;
  readonly major?: number;
  readonly minor?: number;
}

/** One block. Fields of numbers have a digit more than tar-stream's. POSIX pax, "ustar Interchange Format" */
export function ustarHeader(fields: UstarHeader): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  const octal = (at: number, value: number, digits: number): void =>
    void block.write(value.toString(8).padStart(digits, '0'), at);
  block.write(fields.name, 0);
  octal(100, fields.mode, 7);
  octal(108, fields.uid ?? 0, 7);
  octal(116, fields.gid ?? 0, 7);
  octal(124, fields.size, 11);
  octal(136, fields.mtime ?? 0, 11);
  block.fill(' ', 148, 156);
  block.write(fields.type, 156);
  block.write('ustar\x0000', 257);
  octal(329, fields.major ?? 0, 7);
  octal(337, fields.minor ?? 0, 7);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}
