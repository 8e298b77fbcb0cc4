import type { ResponseCodec } from '../service.ts';

/** Tags of ReadContentResponse: field 1 as a varint, field 2 as bytes. */
const OFFSET_TAG = 0x08;
const DATA_TAG = 0x12;
/** Two tags, an int64, a length of 32 bits. */
const HEADER_BYTES_MAX = 2 + 10 + 5;

/** Larger chunks are sent from where they are. */
const COPIED_BYTES_MAX = 16 << 10;

/** Encodes a chunk of a blob, which protobufjs would copy; `data` must stay as it is until it is sent. */
export const readResponse: ResponseCodec<{ readonly offset: number; readonly data: Uint8Array }> = {
  encode: ({ offset, data }) => ({
    finish: () => {
      const copied = data.length <= COPIED_BYTES_MAX ? data.length : 0;
      const message = Buffer.allocUnsafe(HEADER_BYTES_MAX + copied);
      let position = 0;
      if (offset > 0) {
        message[position++] = OFFSET_TAG;
        position = putVarint(message, position, offset);
      }
      message[position++] = DATA_TAG;
      position = putVarint(message, position, data.length);
      if (copied === data.length) {
        message.set(data, position);
        return message.subarray(0, position + copied);
      }
      return [message.subarray(0, position), data];
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
