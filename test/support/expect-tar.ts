import { expect } from 'vitest';
import { OpError } from '../../src/base/errors.ts';
import type { TarLimits } from '../../src/diff/apply/limits.ts';
import { readTar, type ListedEntry } from './read-tar.ts';
import { END, rawEntry } from './tar.ts';

const CHUNKS = [1, 3, 511, 512, 513, 1024, undefined] as const;

/** What differs from the entry of `rawEntry({})`. */
export type Expected = Partial<ListedEntry>;

const plain: ListedEntry = {
  type: 'file',
  path: 'f',
  link: '',
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtime: [0, 0],
  atime: undefined,
  device: [0, 0],
  size: 0,
  xattrs: {},
  offset: 0,
  body: [],
  isEnded: true,
};

/** A file of these bytes. */
export const holding = (text: string): Expected => ({ size: text.length, body: [[0, text]] });

export const tar = (...parts: readonly Buffer[]): Buffer => Buffer.concat([...parts, END]);
export const after = rawEntry({ name: 'after' }, 'end');

/** Base-256, in a field of so many bytes. */
export function binary(value: bigint, bytes: number): string {
  const field = Buffer.alloc(bytes);
  let rest = BigInt.asUintN(8 * bytes, value);
  for (let at = bytes - 1; at >= 0; at--, rest >>= 8n) field[at] = Number(rest & 0xffn);
  field[0] = (field[0] ?? 0) | 0x80;
  return field.toString('latin1');
}

export function expectEntries(bytes: Buffer, expected: readonly Expected[]): void {
  for (const chunkBytes of CHUNKS) {
    const { entries, error } = readTar(bytes, chunkBytes === undefined ? {} : { chunkBytes });
    expect(error, `in chunks of ${chunkBytes}`).toBeUndefined();
    const wanted = expected.map((each, index) => ({
      ...plain,
      offset: entries[index]?.offset ?? -1,
      ...each,
    }));
    expect(entries, `in chunks of ${chunkBytes}`).toEqual(wanted);
  }
}

/** An entry made of these parts is read so, and the reader finds the entry behind it. */
export function expectEntry(parts: readonly Buffer[], expected: Expected): void {
  expectEntries(tar(...parts, after), [expected, { path: 'after', ...holding('end') }]);
}

export function expectRefused(
  bytes: Buffer,
  message: string,
  limits: Partial<TarLimits> = {},
): OpError {
  const errors = CHUNKS.map((chunkBytes) => {
    const chunks = chunkBytes === undefined ? {} : { chunkBytes };
    const { error } = readTar(bytes, { ...chunks, limits });
    if (error === undefined) throw new Error(`${message}: not refused in chunks of ${chunkBytes}`);
    return error;
  });
  for (const error of errors) expect(error.message).toContain(message);
  const [first] = errors;
  for (const error of errors) expect(error.message).toBe(first?.message);
  return first ?? new OpError('Unknown', '');
}
