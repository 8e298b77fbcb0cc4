import { OpError } from '../base/errors.ts';

/** Large reads go in pieces of this size: two buffers of it is all that a reader holds. */
const CHUNK_BYTES = 1 << 20;

/** One chunk is read while the one before is being consumed; each is valid until the next is asked for. */
export async function* readChunks(
  read: (buffer: Buffer, position: number) => Promise<{ bytesRead: number }>,
  start: number,
  end: number,
): AsyncIterable<Uint8Array> {
  const buffers = [0, 1].map(() => Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, end - start)));
  const fill = async (turn: number, position: number): Promise<Uint8Array> => {
    const buffer =
      buffers[turn % 2]?.subarray(0, Math.min(CHUNK_BYTES, end - position)) ?? Buffer.alloc(0);
    for (let filled = 0; filled < buffer.length;) {
      const { bytesRead } = await read(buffer.subarray(filled), position + filled);
      if (bytesRead === 0)
        throw new OpError('DataLoss', `blob ends ${end - position - filled} bytes early`);
      filled += bytesRead;
    }
    return buffer;
  };
  let next = fill(0, start);
  for (let position = start, turn = 1; position < end; position += CHUNK_BYTES, turn++) {
    const chunk = await next;
    if (position + CHUNK_BYTES < end) {
      next = fill(turn, position + CHUNK_BYTES);
      // Awaited in the next round; a consumer that stops first must not make it an unhandled one.
      next.catch(() => undefined);
    }
    yield chunk;
  }
}
