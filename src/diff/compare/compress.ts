import type { Transform } from 'node:stream';
import { createGzip, createZstdCompress } from 'node:zlib';
import type { Compression } from '../apply/inflate.ts';

/** What is compressed at once. */
export const PIECE_BYTES = 256 * 1024;

/**
 * Compresses on one of libuv's threads, while the next piece is being made. The memory of a piece is its
 * maker's again when the next but one is asked for.
 * @param take gets what comes out; what it throws ends it all
 */
export async function compress(
  pieces: AsyncIterable<Uint8Array>,
  compression: Compression,
  take: (bytes: Uint8Array) => void,
): Promise<void> {
  const compressor = compressorOf(compression);
  if (compressor === undefined) {
    for await (const piece of pieces) take(piece);
    return;
  }
  const { promise: ended, resolve, reject } = Promise.withResolvers<void>();
  compressor.on('error', reject).on('end', resolve);
  compressor.on('data', (bytes: Buffer) => {
    try {
      take(bytes);
    } catch (error) {
      compressor.destroy(error instanceof Error ? error : new Error(String(error)));
    }
  });
  try {
    await Promise.race([ended, writeAll(compressor, pieces)]);
    compressor.end();
    await ended;
  } finally {
    compressor.destroy();
  }
}

async function writeAll(compressor: Transform, pieces: AsyncIterable<Uint8Array>): Promise<void> {
  let compressed = Promise.resolve();
  for await (const piece of pieces) {
    await compressed;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    compressor.write(piece, (error) => (error ? reject(error) : resolve()));
    promise.catch(() => undefined);
    compressed = promise;
  }
  await compressed;
}

function compressorOf(compression: Compression): Transform | undefined {
  switch (compression) {
    case 'gzip':
      return createGzip({ chunkSize: PIECE_BYTES });
    case 'zstd':
      return createZstdCompress({ chunkSize: PIECE_BYTES });
    case 'none':
      return undefined;
  }
}
