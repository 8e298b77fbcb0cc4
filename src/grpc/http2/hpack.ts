import { ConnectionError, ERROR } from './errors.ts';
import { STATIC_FIELDS } from './hpack-tables.ts';
import { decodeHuffman } from './huffman.ts';

/** By name, lower case; several values of one name are joined with ", ", as node:http does. */
export type HeaderFields = ReadonlyMap<string, string>;

/** What our SETTINGS leave at its default. */
const TABLE_BYTES_MAX = 4096;
/** RFC 7541, section 4.1: what a field counts beside its characters. */
const FIELD_OVERHEAD = 32;
/** Of one list of fields, counted like that; our SETTINGS say so. */
export const FIELDS_BYTES_MAX = 64 << 10;

type Field = readonly [name: string, value: string];

/** RFC 7541's decoder, with the client's dynamic table. One for each connection. */
export class HpackDecoder {
  /** The newest first. */
  readonly #table: Field[] = [];
  #tableBytes = 0;
  #tableBytesMax = TABLE_BYTES_MAX;

  /** @throws ConnectionError compression: what follows could not be understood any more */
  decode(block: Uint8Array): HeaderFields {
    const reader = new Reader(block);
    const fields = new Map<string, string>();
    let bytes = 0;
    while (!reader.atEnd) {
      const first = reader.peek();
      if ((first & 0xe0) === 0x20) {
        this.#resize(reader.integer(5), fields.size > 0);
        continue;
      }
      const [name, value] = this.#field(reader, first);
      bytes += sizeOf(name, value);
      if (bytes > FIELDS_BYTES_MAX) {
        throw new ConnectionError(ERROR.enhanceYourCalm, 'too many header fields');
      }
      const before = fields.get(name);
      fields.set(name, before === undefined ? value : `${before}, ${value}`);
    }
    return fields;
  }

  #field(reader: Reader, first: number): Field {
    if ((first & 0x80) !== 0) return this.#indexed(reader.integer(7));
    const isAdded = (first & 0x40) !== 0;
    const index = reader.integer(isAdded ? 6 : 4);
    const name = index === 0 ? reader.string() : this.#indexed(index)[0];
    const field = [name, reader.string()] as const;
    if (isAdded) this.#add(field);
    return field;
  }

  #indexed(index: number): Field {
    const field =
      index <= STATIC_FIELDS.length
        ? STATIC_FIELDS[index - 1]
        : this.#table[index - STATIC_FIELDS.length - 1];
    if (field === undefined) throw broken(`no field has the index ${index}`);
    return field;
  }

  #add(field: Field): void {
    this.#table.unshift(field);
    this.#tableBytes += sizeOf(...field);
    this.#evict();
  }

  #resize(bytes: number, isLate: boolean): void {
    if (isLate) throw broken('the table changes its size within a block');
    if (bytes > TABLE_BYTES_MAX) throw broken(`a table of ${bytes} bytes`);
    this.#tableBytesMax = bytes;
    this.#evict();
  }

  #evict(): void {
    while (this.#tableBytes > this.#tableBytesMax) {
      const oldest = this.#table.pop();
      if (oldest === undefined) return;
      this.#tableBytes -= sizeOf(...oldest);
    }
  }
}

const sizeOf = (name: string, value: string): number => name.length + value.length + FIELD_OVERHEAD;

const broken = (how: string): ConnectionError =>
  new ConnectionError(ERROR.compression, `header block: ${how}`);

class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get atEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  peek(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw broken('it ends within a field');
    return byte;
  }

  /** Section 5.1, with a prefix of so many bits. */
  integer(prefixBits: number): number {
    const prefixMax = 2 ** prefixBits - 1;
    let value = this.#next() & prefixMax;
    if (value < prefixMax) return value;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#next();
      // No length or index of ours comes near.
      if (shift > 21) throw broken('an integer is too large');
      value += (byte & 0x7f) * 2 ** shift;
      if ((byte & 0x80) === 0) return value;
    }
  }

  /** Section 5.2. */
  string(): string {
    const isHuffman = (this.peek() & 0x80) !== 0;
    const length = this.integer(7);
    const end = this.#at + length;
    if (end > this.#bytes.length) throw broken('it ends within a string');
    const bytes = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    if (!isHuffman) return latin1(bytes);
    const text = decodeHuffman(bytes);
    if (text === undefined) throw broken('a string is not in the Huffman code');
    return text;
  }

  #next(): number {
    const byte = this.peek();
    this.#at++;
    return byte;
  }
}

const latin1 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');

/**
 * A block that leaves the client's table alone, so that blocks can be made once and sent on any
 * connection: literals only, never indexed. Names are lower case, all of it ASCII.
 */
export function encodeFields(fields: readonly Field[]): Buffer {
  const parts: Buffer[] = [];
  for (const [name, value] of fields) {
    parts.push(Buffer.of(0), literal(name), literal(value));
  }
  return Buffer.concat(parts);
}

function literal(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  const length: number[] = [];
  if (bytes.length < 127) {
    length.push(bytes.length);
  } else {
    length.push(127);
    let rest = bytes.length - 127;
    for (; rest >= 128; rest = Math.floor(rest / 128)) length.push((rest % 128) | 128);
    length.push(rest);
  }
  return Buffer.concat([Buffer.from(length), bytes]);
}

/**
 * To come first in the first block of a connection: our encoder's table has no room, whatever the
 * client's SETTINGS allow or take back. RFC 7541, section 4.2
 */
export const NO_TABLE = Buffer.of(0x20);
