import { quote } from '../../base/errors.ts';
import { TarFault } from './tar-fault.ts';

/** A moment: seconds since 1970, less than zero before it, and the nanoseconds after that second. */
export interface Time {
  readonly seconds: number;
  readonly nanoseconds: number;
}

/** Views of a body, by keyword as latin1. */
export type PaxValues = ReadonlyMap<string, Buffer>;

export interface PaxRecords {
  readonly values: PaxValues;
  /** Of the keywords that come many times: offsets and lengths of format 0.0, in turn. */
  readonly pairs: readonly number[];
}

/**
 * The records of an extended header, the last of each keyword.
 * @throws TarFault a record that is malformed
 */
export function parseRecords(body: Buffer): PaxRecords {
  const values = new Map<string, Buffer>();
  const pairs: number[] = [];
  for (let at = 0; at < body.length;) {
    const record = recordAt(body, at);
    const { keyword, value } = record;
    if (keyword === SPARSE_PAIR[0] || keyword === SPARSE_PAIR[1]) {
      if (keyword !== SPARSE_PAIR[pairs.length % 2]) {
        throw new TarFault('its sparse map has not a length after each offset');
      }
      pairs.push(digits(value.toString('latin1'), keyword));
    } else values.set(keyword, value);
    at = record.end;
  }
  return { values, pairs };
}

const SPARSE_PAIR = ['GNU.sparse.offset', 'GNU.sparse.numbytes'] as const;

const EQUALS = 0x3d;
const NEWLINE = 0x0a;
/** More than those of any length within a limit of extension headers. */
const LENGTH_DIGITS_MAX = 16;

interface PaxRecord {
  readonly keyword: string;
  readonly value: Buffer;
  readonly end: number;
}

/** "%d %s=%s\n": the length counts all of the record. */
function recordAt(body: Buffer, start: number): PaxRecord {
  const head = body.toString('latin1', start, start + LENGTH_DIGITS_MAX + 1);
  const length = /^(\d+) /.exec(head)?.[1];
  if (length === undefined) throw malformed(start, 'has no length');
  const end = start + Number(length);
  if (end > body.length) throw malformed(start, 'is longer than its header');
  const keywordAt = start + length.length + 1;
  const equals = body.indexOf(EQUALS, keywordAt);
  if (equals < 0 || equals >= end) throw malformed(start, 'has no value');
  if (equals === keywordAt) throw malformed(start, 'has no keyword');
  if (body[end - 1] !== NEWLINE) throw malformed(start, 'does not end with a newline');
  const keyword = body.toString('latin1', keywordAt, equals);
  const value = body.subarray(equals + 1, end - 1);
  if (keyword.includes('\0')) throw malformed(start, 'has a NUL in its keyword');
  // A C program would take what is before it for the whole.
  if (NAMES.includes(keyword) && value.includes(0)) throw malformed(start, 'has a NUL in a name');
  return { keyword, value, end };
}

const NAMES: readonly string[] = ['path', 'linkpath', 'GNU.sparse.name'];

const malformed = (at: number, how: string): TarFault =>
  new TarFault(`the record at byte ${at} of an extended header ${how}`);

/** An empty value takes a record back. */
export function copyOf(value: Buffer | undefined): Buffer | undefined {
  return value === undefined || value.length === 0 ? undefined : Buffer.from(value);
}

export function textOf(values: PaxValues, key: string): string | undefined {
  const value = values.get(key);
  return value === undefined || value.length === 0 ? undefined : value.toString('latin1');
}

export function decimal(values: PaxValues, key: string): number | undefined {
  const text = textOf(values, key);
  return text === undefined ? undefined : digits(text, key);
}

export function digits(text: string, what: string): number {
  const value = /^\d+$/.test(text) ? Number(text) : undefined;
  if (value === undefined) throw new TarFault(`its ${what} is ${quote(text)}, which is no number`);
  if (!Number.isSafeInteger(value)) throw new TarFault(`its ${what} is beyond 2^53`);
  return value;
}

/** A decimal number of any precision; what is below a nanosecond is cut off. @throws TarFault */
export function time(values: PaxValues, key: string): Time | undefined {
  const text = textOf(values, key);
  if (text === undefined) return undefined;
  const match = /^(?<sign>-?)(?<whole>\d+)(?:\.(?<fraction>\d*))?$/.exec(text)?.groups;
  if (match === undefined) throw new TarFault(`its ${key} is ${quote(text)}, which is no time`);
  const seconds = digits(match['whole'] ?? '', key);
  const nanoseconds = Number((match['fraction'] ?? '').slice(0, 9).padEnd(9, '0'));
  if (match['sign'] === '') return { seconds, nanoseconds };
  return nanoseconds === 0
    ? { seconds: 0 - seconds, nanoseconds }
    : { seconds: -1 - seconds, nanoseconds: 1e9 - nanoseconds };
}
