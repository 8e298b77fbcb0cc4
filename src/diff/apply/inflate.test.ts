import { constants, gzipSync, zstdCompressSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { numberFromEnv, Random, testSeed } from '../../../test/support/random.ts';
import { testUnless } from '../../../test/support/unless-missing.ts';
import { isalGunzip } from '../../platform/linux/isal.ts';
import { compressionOf, gunzip, makeInflater, zlibGunzip, type Compression } from './inflate.ts';

/** Compresses so little that every cut is somewhere in the data. */
const PLAIN = Buffer.from(Array.from({ length: 5000 }, (_, n) => (n * n * 31) % 251));
const CHUNKS = [1, 7, 64, 4096, 1 << 20];

function inflate(
  compressed: Uint8Array,
  chunkBytes: number,
  { kind = compressionOf(compressed), decoder = gunzip, slotBytes = 1000 } = {},
) {
  const slot = Buffer.alloc(slotBytes);
  const out: Buffer[] = [];
  const publish = (length: number): void => void out.push(Buffer.from(slot.subarray(0, length)));
  const inflater = makeInflater(kind, { slot: () => slot, publish }, decoder);
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

test('skippable zstd frames are passed over', () => {
  const [a, b] = [PLAIN.subarray(0, 99), PLAIN.subarray(99)].map((part) => compress('zstd', part));
  const all = [skippable(5), a, skippable(3000), skippable(0), b, skippable(1)];
  const compressed = Buffer.concat(all.filter((part) => part !== undefined));
  for (const chunk of CHUNKS) expect(inflate(compressed, chunk).equals(PLAIN)).toBe(true);
});

test('a window that takes too much memory is refused', () => {
  // A frame header that asks for 2 GiB, and one empty last block. RFC 8878, section 3.1.1
  const frame = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00]);
  expect(() => inflate(frame, 1 << 20)).toThrow(/zstd stream, near byte/);
});

const decoders = { zlib: zlibGunzip, 'what this machine has': gunzip };

describe.each(Object.entries(decoders))('gzip by %s', (_name, decoder) => {
  test('members and frames, one after another or empty, are one stream, wherever chunks end', () => {
    const halves = [PLAIN.subarray(0, 2000), Buffer.alloc(0), PLAIN.subarray(2000)];
    for (const kind of ['gzip', 'zstd'] as const) {
      const compressed = Buffer.concat(halves.map((half) => compress(kind, half)));
      for (const chunk of CHUNKS)
        expect(inflate(compressed, chunk, { decoder }).equals(PLAIN)).toBe(true);
    }
  });

  test('zeros behind gzip, as tapes have them, are passed over; anything else behind a stream is refused', () => {
    for (const chunk of CHUNKS) {
      const padded = Buffer.concat([compress('gzip', PLAIN), Buffer.alloc(700)]);
      expect(inflate(padded, chunk, { decoder }).equals(PLAIN)).toBe(true);
      for (const kind of ['gzip', 'zstd'] as const) {
        for (const tail of ['garbage', '\0\0garbage']) {
          const compressed = Buffer.concat([compress(kind, PLAIN), Buffer.from(tail)]);
          expect(() => inflate(compressed, chunk, { decoder })).toThrow(/stream, near byte/);
        }
      }
    }
  });

  test('a stream that was cut off is refused, wherever', () => {
    for (const kind of ['gzip', 'zstd'] as const) {
      const compressed = compress(kind, PLAIN);
      for (let end = 4; end < compressed.length; end++) {
        expect(() => inflate(compressed.subarray(0, end), 1 << 20, { kind, decoder })).toThrow(
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
        expect(() => inflate(damaged, 4096, { kind, decoder })).toThrow(/stream, near byte/);
      }
    }
  });
});

const MISSING = isalGunzip() === undefined ? 'libisal.so.2 (Debian: libisal2)' : undefined;

testUnless(
  MISSING,
  'of damaged streams ISA-L makes what zlib makes, or what was meant',
  async () => {
    const seed = testSeed();
    process.stdout.write(`BALLAST_SEED=${seed}\n`);
    const random = new Random(seed);
    for (let count = numberFromEnv('FUZZ_CASES', 2000); count > 0; count--) {
      const plain = Buffer.from(
        Array.from({ length: random.below(3000) }, () =>
          random.below(random.pick([2, 20, 256]) ?? 2),
        ),
      );
      const level = random.below(10);
      const members = [plain, plain.subarray(0, random.below(50))];
      const stream = Buffer.concat(members.map((member) => gzipSync(member, { level })));
      // Behind the flags of the first header, which the two check more or less strictly.
      const at = 4 + random.below(stream.length - 4);
      if (random.chance(0.9)) stream[at] = random.below(256);
      const cut = stream.subarray(0, random.chance(0.2) ? at : undefined);
      const [chunk, slotBytes] = [1 + random.below(500), 1 + random.below(2000)];
      const read = (decoder: typeof gunzip): string => {
        try {
          return inflate(cut, chunk, { kind: 'gzip', decoder, slotBytes }).toString('hex');
        } catch (error) {
          expect(String(error)).toMatch(/gzip stream, near byte/);
          return 'refused';
        }
      };
      const [isal, zlib] = [read(gunzip), read(zlibGunzip)];
      // zlib refuses codes that nothing uses, where the checksum says that all is well.
      const isHarmless = zlib === 'refused' && isal === Buffer.concat(members).toString('hex');
      if (!isHarmless) expect(isal).toBe(zlib);
    }
  },
  60_000,
);
