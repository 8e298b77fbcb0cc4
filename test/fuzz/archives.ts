import fc from 'fast-check';
import {
  END,
  GNU,
  rawEntry,
  rawHeader,
  rawLongName,
  rawPax,
  USTAR,
  type RawHeader,
} from '../support/tar.ts';

/** What an entry of a made archive is. Names are text. */
export interface MadeEntry {
  readonly type: '0' | '1' | '2' | '3' | '4' | '5' | '6' | '7';
  readonly name: string;
  readonly link: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: number;
  readonly body: Buffer;
  /** How what does not fit in the header is written. */
  readonly dialect: 'gnu' | 'pax';
  /** Whether the size is in a PAX record and not in the header. */
  readonly isSizeInPax: boolean;
  readonly xattrs: readonly (readonly [string, string])[];
}

const names = fc
  .oneof(
    { weight: 3, arbitrary: fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 40 }) },
    fc.string({ unit: 'grapheme', minLength: 1, maxLength: 80 }),
    fc.string({
      unit: fc.constantFrom('a', 'é', '/', '.', '\n', '='),
      minLength: 95,
      maxLength: 400,
    }),
    fc.constantFrom('../../x', '/abs', './', 'a//b', ' ', '.wh.x', '__proto__'),
  )
  // The factory of headers writes latin1.
  .map((name) => name.replaceAll('\0', ''));

const ids = fc.oneof(fc.nat(0o7777777), fc.integer({ min: 0o10000000, max: 2 ** 32 - 2 }));
const bodies = fc.oneof(
  fc.constant(Buffer.alloc(0)),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
  fc.integer({ min: 500, max: 2100 }).map((length) => Buffer.alloc(length, 'body of a file ')),
);

export const madeEntries: fc.Arbitrary<MadeEntry> = fc
  .record({
    type: fc.constantFrom('0', '0', '0', '1', '2', '3', '4', '5', '6', '7'),
    name: names,
    link: names,
    mode: fc.nat(0o7777),
    uid: ids,
    gid: ids,
    mtime: fc.nat(2 ** 33),
    body: bodies,
    dialect: fc.constantFrom('gnu', 'pax'),
    isSizeInPax: fc.boolean(),
    xattrs: fc.uniqueArray(fc.tuple(fc.constantFrom('user.a', 'user.ü', 'security.b'), names), {
      selector: ([key]) => key,
      maxLength: 2,
    }),
  })
  .map((entry) => {
    const isFile = entry.type === '0' || entry.type === '7';
    const isLink = entry.type === '1' || entry.type === '2';
    return {
      ...entry,
      name: entry.name === '' ? 'n' : entry.name,
      link: isLink ? entry.link : '',
      body: isFile ? entry.body : Buffer.alloc(0),
    };
  });

/** Writes an entry with the headers that it needs. */
export function made(entry: MadeEntry): Buffer {
  return entry.dialect === 'gnu' ? madeGnu(entry) : madePax(entry);
}

export const archiveOf = (entries: readonly MadeEntry[]): Buffer =>
  Buffer.concat([...entries.map(made), END]);

const latin1 = (text: string): string => Buffer.from(text).toString('latin1');

function madeGnu({ name, link, uid, gid, ...entry }: MadeEntry): Buffer {
  const long: Buffer[] = [];
  if (latin1(link).length > 100) long.push(rawLongName('K', link));
  if (latin1(name).length > 100) long.push(rawLongName('L', name));
  const fields = { uid: gnuNumber(uid), gid: gnuNumber(gid), magic: GNU };
  return Buffer.concat([
    ...long,
    rawEntry({ ...shortFields(name, link, entry), ...fields }, entry.body),
  ]);
}

function madePax({ name, link, uid, gid, ...entry }: MadeEntry): Buffer {
  const records: (readonly [string, string])[] = entry.xattrs.map(([key, value]) => [
    `SCHILY.xattr.${latin1(key)}`,
    latin1(value),
  ]);
  if (latin1(name).length > 100) records.push(['path', latin1(name)]);
  if (latin1(link).length > 100) records.push(['linkpath', latin1(link)]);
  if (uid > 0o7777777) records.push(['uid', String(uid)]);
  if (gid > 0o7777777) records.push(['gid', String(gid)]);
  const hasSize = entry.isSizeInPax && entry.body.length > 0;
  if (hasSize) records.push(['size', String(entry.body.length)]);
  const fields = {
    uid: octal(uid),
    gid: octal(gid),
    ...(hasSize ? { size: 0 } : {}),
    magic: USTAR,
  };
  const bytes = rawEntry({ ...shortFields(name, link, entry), ...fields }, entry.body);
  return records.length === 0 ? bytes : Buffer.concat([rawPax(records), bytes]);
}

const shortFields = (
  name: string,
  link: string,
  entry: Pick<MadeEntry, 'type' | 'mode' | 'mtime'>,
): RawHeader => ({
  name: latin1(name).slice(0, 100),
  link: latin1(link).slice(0, 100),
  mode: octal(entry.mode),
  mtime: entry.mtime.toString(8).padStart(11, '0'),
  type: entry.type,
});

const octal = (value: number): string =>
  (value > 0o7777777 ? 0 : value).toString(8).padStart(7, '0');

function gnuNumber(value: number): string {
  if (value <= 0o7777777) return octal(value);
  const field = Buffer.alloc(8);
  field.writeUIntBE(value, 2, 6);
  field[0] = 0x80;
  return field.toString('latin1');
}

/** What a hostile or broken writer, or a broken disk, makes of an archive. Places are parts of its length. */
export type Mutation =
  | { readonly how: 'flip'; readonly place: number; readonly bit: number }
  | { readonly how: 'write'; readonly place: number; readonly bytes: Uint8Array }
  | { readonly how: 'cut'; readonly place: number }
  | { readonly how: 'insert'; readonly place: number; readonly block: Buffer }
  | { readonly how: 'remove'; readonly place: number }
  | { readonly how: 'repeat'; readonly place: number };

const place = fc.noBias(fc.nat(9999)).map((part) => part / 10_000);
const BLOCKS: readonly Buffer[] = [
  Buffer.alloc(512),
  Buffer.alloc(512, 0xff),
  rawHeader({ size: 0o77777777777 }),
  rawHeader({ type: 'x', size: 600 }),
  rawHeader({ type: 'g', size: 13 }),
  rawHeader({ type: 'L', magic: GNU, size: 511 }),
  rawHeader({
    type: 'S',
    magic: GNU,
    size: 9,
    more: [
      [482, '\x01'],
      [483, '00000010000'],
    ],
  }),
  rawPax([
    ['GNU.sparse.major', '1'],
    ['GNU.sparse.minor', '0'],
    ['GNU.sparse.realsize', '9999'],
  ]),
  rawPax([
    ['GNU.sparse.map', '0,5,90,600'],
    ['GNU.sparse.numblocks', '2'],
    ['size', '605'],
  ]),
  rawPax([
    ['path', ''],
    ['mtime', '-1.5'],
    ['uid', '4294967296'],
  ]),
  Buffer.from('2\n0\n300\n1000\n300\n'.padEnd(512, '\0')),
];

export const mutations: fc.Arbitrary<Mutation> = fc.oneof(
  fc.record({ how: fc.constant('flip'), place, bit: fc.nat(7) }),
  fc.record({
    how: fc.constant('write'),
    place,
    bytes: fc.uint8Array({ minLength: 1, maxLength: 12 }),
  }),
  fc.record({ how: fc.constant('cut'), place }),
  fc.record({ how: fc.constant('insert'), place, block: fc.constantFrom(...BLOCKS) }),
  fc.record({ how: fc.constant('remove'), place }),
  fc.record({ how: fc.constant('repeat'), place }),
);

export function mutated(archive: Buffer, mutation: Mutation): Buffer {
  const at = Math.floor(mutation.place * Math.max(archive.length - 1, 0));
  const block = at - (at % 512);
  const around = (...middle: readonly Buffer[]): Buffer =>
    Buffer.concat([archive.subarray(0, block), ...middle, archive.subarray(block)]);
  switch (mutation.how) {
    case 'flip':
      return written(archive, at, [(archive[at] ?? 0) ^ (1 << mutation.bit)]);
    case 'write':
      return written(archive, at, mutation.bytes);
    case 'cut':
      return archive.subarray(0, at);
    case 'insert':
      return around(mutation.block);
    case 'remove':
      return Buffer.concat([archive.subarray(0, block), archive.subarray(block + 512)]);
    case 'repeat':
      return around(archive.subarray(block, block + 512));
  }
}

function written(archive: Buffer, at: number, bytes: ArrayLike<number>): Buffer {
  const copy = Buffer.from(archive);
  copy.set(Array.from(bytes).slice(0, copy.length - at), at);
  return copy;
}

/** Gives every block that has a header's magic the right checksum, so that what was changed is looked at. */
export function withChecksums(archive: Buffer): Buffer {
  const copy = Buffer.from(archive);
  for (let at = 0; at + 512 <= copy.length; at += 512) {
    const block = copy.subarray(at, at + 512);
    if (block.toString('latin1', 257, 262) !== 'ustar') continue;
    block.fill(0x20, 148, 156);
    let sum = 0;
    for (const byte of block) sum += byte;
    block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  }
  return copy;
}
