import { expect, test } from 'vitest';
import { containerd } from '../gen/wire.js';
import { readResponse } from './read-response.ts';

const { ReadContentResponse } = containerd.services.content.v1;

test('a chunk is encoded as protobufjs would', () => {
  for (const offset of [0, 1, 127, 128, 2 ** 31, 2 ** 40 + 5, Number.MAX_SAFE_INTEGER]) {
    for (const length of [1, 127, 128, 16384, 16385, 1 << 20]) {
      const data = Buffer.alloc(length, 7);
      const message = readResponse.encode({ offset, data }).finish();
      const bytes = message instanceof Uint8Array ? message : Buffer.concat(message);
      expect(Buffer.compare(bytes, ReadContentResponse.encode({ offset, data }).finish())).toBe(0);
    }
  }
});

test('a large chunk is sent from where it is', () => {
  const data = Buffer.alloc(1 << 20);
  expect(readResponse.encode({ offset: 0, data }).finish()).toContain(data);
});
