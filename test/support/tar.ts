/** Fields of a header as bytes of latin1; what is left out is what a plain file of no bytes has. */
export interface RawHeader {
  readonly name?: string;
  readonly mode?: string;
  readonly uid?: string;
  readonly gid?: string;
  readonly size?: string | number;
  readonly mtime?: string;
  readonly type?: string;
  readonly link?: string;
  readonly magic?: string;
  readonly major?: string;
  readonly minor?: string;
  readonly prefix?: string;
  readonly checksum?: string;
  /** Anything at any place. */
  readonly more?: readonly (readonly [at: number, bytes: string])[];
}

export const USTAR = 'ustar\x0000';
export const GNU = 'ustar  \0';
export const V7 = '\0\0\0\0\0\0\0\0';

/** One header of any sort, right or wrong. */
export function rawHeader(fields: RawHeader = {}): Buffer {
  const block = Buffer.alloc(512);
  const put = (at: number, text: string): void => void block.write(text, at, 'latin1');
  const size = fields.size ?? 0;
  put(0, fields.name ?? 'f');
  put(100, fields.mode ?? '0000644');
  put(108, fields.uid ?? '0000000');
  put(116, fields.gid ?? '0000000');
  put(124, typeof size === 'string' ? size : octal(size, 11));
  put(136, fields.mtime ?? '00000000000');
  put(156, fields.type ?? '0');
  put(157, fields.link ?? '');
  put(257, fields.magic ?? USTAR);
  put(329, fields.major ?? '');
  put(337, fields.minor ?? '');
  put(345, fields.prefix ?? '');
  for (const [at, bytes] of fields.more ?? []) put(at, bytes);
  put(148, fields.checksum ?? '        ');
  if (fields.checksum === undefined) put(148, `${octal(sum(block), 6)}\0 `);
  return block;
}

/** An entry: its header, and its bytes up to the end of a block. */
export function rawEntry(fields: RawHeader, body: string | Buffer = ''): Buffer {
  const bytes = Buffer.from(body);
  const padding = Buffer.alloc((512 - (bytes.length % 512)) % 512);
  return Buffer.concat([rawHeader({ size: bytes.length, ...fields }), bytes, padding]);
}

/** An extended header with these records. */
export const rawPax = (records: readonly (readonly [string, string])[], type = 'x'): Buffer =>
  rawEntry({ name: 'PaxHeaders/f', type }, Buffer.concat(records.map(paxRecord)));

function paxRecord([key, value]: readonly [string, string]): Buffer {
  const rest = Buffer.from(` ${key}=${value}\n`, 'latin1');
  let length = rest.length;
  while (rest.length + String(length).length !== length) {
    length = rest.length + String(length).length;
  }
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

/** GNU's header for a name of any length. */
export const rawLongName = (type: 'K' | 'L', name: string): Buffer =>
  rawEntry({ name: '././@LongLink', type, magic: GNU }, `${name}\0`);

export const END = Buffer.alloc(1024);

const octal = (value: number, digits: number): string => value.toString(8).padStart(digits, '0');

function sum(block: Buffer): number {
  let total = 0;
  for (const byte of block) total += byte;
  return total;
}
