import { constants, gzipSync, zstdCompressSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { compressionOf, makeInflater, type Compression } from './inflate.ts';

/** Compresses so little that every cut is somewhere in the data. */
const PLAIN = Buffer.from(Array.from({ length: 5000 }, (_, n) => (n * n * 31) % 251));
const CHUNKS = [1, 7, 64, 4096, 1 << 20];

function inflate(compressed: Uint8Array, chunkBytes: number, kind = compressionOf(compressed)) {
  const slot = Buffer.alloc(1000);
  const out: Buffer[] = [];
  const publish = (length: number): void => void out.push(Buffer.from(slot.subarray(0, length)));
  const inflater = makeInflater(kind, { slot: () => slot, publish });
  for (let at = 0; at < compressed.length; at += chunkBytes) {
    inflater.push(compressed.subarray(at, at + chunkBytes));
  }
  inflater.finish();
  return Buffer.concat(out);
}

const compress = (kind: Compression, bytes: Uint8Array): Buffer =>
  kind === 'gzip' ? gzipSync(bytes) : zstdCompressSync(bytes);

const skippable = (bytes: number): Buffer => {
  const frame = Buffer.alloc(8 + bytes, 'x');
  frame.writeUInt32LE(0x184d2a57);
  frame.writeUInt32LE(bytes, 4);
  return frame;
};

test('plain bytes go through as they are', () => {
  for (const chunk of CHUNKS) expect(inflate(PLAIN, chunk).equals(PLAIN)).toBe(true);
});

test('members and frames, one after another or empty, are one stream, wherever chunks end', () => {
  const halves = [PLAIN.subarray(0, 2000), Buffer.alloc(0), PLAIN.subarray(2000)];
  for (const kind of ['gzip', 'zstd'] as const) {
    const compressed = Buffer.concat(halves.map((half) => compress(kind, half)));
    for (const chunk of CHUNKS) expect(inflate(compressed, chunk).equals(PLAIN)).toBe(true);
  }
});

test('skippable zstd frames are passed over', () => {
  const [a, b] = [PLAIN.subarray(0, 99), PLAIN.subarray(99)].map((part) => compress('zstd', part));
  const all = [skippable(5), a, skippable(3000), skippable(0), b, skippable(1)];
  const compressed = Buffer.concat(all.filter((part) => part !== undefined));
  for (const chunk of CHUNKS) expect(inflate(compressed, chunk).equals(PLAIN)).toBe(true);
});

test('zeros behind gzip, as tapes have them, are passed over; anything else behind a stream is refused', () => {
  for (const chunk of CHUNKS) {
    const padded = Buffer.concat([compress('gzip', PLAIN), Buffer.alloc(700)]);
    expect(inflate(padded, chunk).equals(PLAIN)).toBe(true);
    for (const kind of ['gzip', 'zstd'] as const) {
      for (const tail of ['garbage', '\0\0garbage']) {
        const compressed = Buffer.concat([compress(kind, PLAIN), Buffer.from(tail)]);
        expect(() => inflate(compressed, chunk)).toThrow(/stream, near byte/);
      }
    }
  }
});

test('a stream that was cut off is refused, wherever', () => {
  for (const kind of ['gzip', 'zstd'] as const) {
    const compressed = compress(kind, PLAIN);
    for (let end = 4; end < compressed.length; end++) {
      expect(() => inflate(compressed.subarray(0, end), 1 << 20, kind)).toThrow(
        /stream, near byte/,
      );
    }
  }
});

test('a flipped bit is noticed', () => {
  for (const kind of ['gzip', 'zstd'] as const) {
    const compressed =
      kind === 'gzip'
        ? gzipSync(PLAIN)
        : zstdCompressSync(PLAIN, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
    // The first ten bytes of gzip hold a time and a system, which nobody checks.
    for (let at = 10; at < compressed.length; at += 13) {
      const damaged = Buffer.from(compressed);
      damaged[at] = (damaged[at] ?? 0) ^ 0x10;
      expect(() => inflate(damaged, 4096, kind)).toThrow(/stream, near byte/);
    }
  }
});

test('a window that takes too much memory is refused', () => {
  // A frame header that asks for 2 GiB, and one empty last block. RFC 8878, section 3.1.1
  const frame = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00]);
  expect(() => inflate(frame, 1 << 20)).toThrow(/zstd stream, near byte/);
});
