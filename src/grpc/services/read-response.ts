import type { ResponseCodec } from '../service.ts';

/** Tags of ReadContentResponse: field 1 as a varint, field 2 as bytes. */
const OFFSET_TAG = 0x08;
const DATA_TAG = 0x12;
/** Two tags, an int64, a length of 32 bits. */
const HEADER_BYTES_MAX = 2 + 10 + 5;

/**
 * Encodes a chunk of a blob with one copy, where protobufjs would make several; the memory of `data`
 * may be used again afterwards.
 */
export const readResponse: ResponseCodec<{ readonly offset: number; readonly data: Uint8Array }> = {
  encode: ({ offset, data }) => ({
    finish: () => {
      const message = Buffer.allocUnsafe(HEADER_BYTES_MAX + data.length);
      let position = 0;
      if (offset > 0) {
        message[position++] = OFFSET_TAG;
        position = putVarint(message, position, offset);
      }
      if (data.length > 0) {
        message[position++] = DATA_TAG;
        position = putVarint(message, position, data.length);
        message.set(data, position);
      }
      return message.subarray(0, position + data.length);
    },
  }),
};

/** Without bit operations, which are exact only up to 32 bits. */
function putVarint(target: Buffer, start: number, value: number): number {
  let position = start;
  let rest = value;
  while (rest >= 0x80) {
    target[position++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  target[position++] = rest;
  return position;
}
