import { describe, expect, test } from 'vitest';
import { ConnectionError, ERROR } from './errors.ts';
import { encodeFields, FIELDS_BYTES_MAX, HpackDecoder } from './hpack.ts';
import { decodeHuffman } from './huffman.ts';

const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(' ', ''), 'hex');
const decoded = (decoder: HpackDecoder, hex: string): readonly (readonly [string, string])[] => [
  ...decoder.decode(bytes(hex)),
];

describe('RFC 7541, appendix C', () => {
  const first = [
    [':method', 'GET'],
    [':scheme', 'http'],
    [':path', '/'],
    [':authority', 'www.example.com'],
  ];
  const second = [...first, ['cache-control', 'no-cache']];
  const third = [
    [':method', 'GET'],
    [':scheme', 'https'],
    [':path', '/index.html'],
    [':authority', 'www.example.com'],
    ['custom-key', 'custom-value'],
  ];

  test('C.2: each representation', () => {
    const one = (hex: string) => decoded(new HpackDecoder(), hex);
    expect(one('400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572')).toEqual([
      ['custom-key', 'custom-header'],
    ]);
    expect(one('040c 2f73 616d 706c 652f 7061 7468')).toEqual([[':path', '/sample/path']]);
    expect(one('1008 7061 7373 776f 7264 0673 6563 7265 74')).toEqual([['password', 'secret']]);
    expect(one('82')).toEqual([[':method', 'GET']]);
  });

  test('C.3: requests without Huffman code share a table', () => {
    const decoder = new HpackDecoder();
    expect(decoded(decoder, '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d')).toEqual(first);
    expect(decoded(decoder, '8286 84be 5808 6e6f 2d63 6163 6865')).toEqual(second);
    const hex = '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65';
    expect(decoded(decoder, hex)).toEqual(third);
  });

  test('C.4: requests with Huffman code', () => {
    const decoder = new HpackDecoder();
    expect(decoded(decoder, '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff')).toEqual(first);
    expect(decoded(decoder, '8286 84be 5886 a8eb 1064 9cbf')).toEqual(second);
    const hex = '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf';
    expect(decoded(decoder, hex)).toEqual(third);
  });
});

test('fields drop out of the table in the order they came, and a client may empty it', () => {
  const decoder = new HpackDecoder();
  const add = (name: string, value: string): void => {
    const block = encodeFields([[name, value]]);
    block[0] = 0x40;
    decoder.decode(block);
  };
  add('old', 'x'.repeat(2000));
  add('new', 'y'.repeat(2000));
  expect(decoded(decoder, 'be')).toEqual([['new', 'y'.repeat(2000)]]);
  expect(decoded(decoder, 'bf')).toEqual([['old', 'x'.repeat(2000)]]);
  add('newest', 'z');
  expect(decoded(decoder, 'bf')).toEqual([['new', 'y'.repeat(2000)]]);
  expect(() => decoded(decoder, 'c0')).toThrow(ConnectionError);
  expect(() => decoded(decoder, '20 be')).toThrow(/no field has the index 62/);
});

test('what encodeFields writes is read back, long values too', () => {
  const fields = [1, 126, 127, 128, 254, 255, 256, 16_383, 20_000].map(
    (length) => [`name-${length}`, 'v'.repeat(length)] as const,
  );
  expect([...new HpackDecoder().decode(encodeFields(fields))]).toEqual(fields);
});

test('several values of one name are one, joined as node:http joins them', () => {
  const block = encodeFields([
    ['containerd-lease', 'first'],
    ['containerd-lease', 'second'],
  ]);
  expect(new HpackDecoder().decode(block).get('containerd-lease')).toBe('first, second');
});

describe('refused', () => {
  const cases: Record<string, string> = {
    'an index of nothing': '80',
    'an index beyond the tables': 'ff 20',
    'an integer without an end': 'ff ff ff ff ff ff ff ff',
    'a string longer than the block': '00 7f 7f 61',
    'a field without a value': '00 01 61',
    'a table larger than announced': '3f e2 1f',
    'a table that changes within the block': '82 20',
    'a Huffman string with an end inside': '00 84 ff ff ff ff 01 61',
  };
  for (const [what, hex] of Object.entries(cases)) {
    test(what, () => {
      expect(() => decoded(new HpackDecoder(), hex)).toThrow(
        expect.objectContaining({ code: ERROR.compression }),
      );
    });
  }

  test('a small block that would unfold to more than is allowed', () => {
    const long = encodeFields([['a', 'x'.repeat(4000)]]);
    long[0] = 0x40;
    const bomb = Buffer.concat([long, Buffer.alloc(FIELDS_BYTES_MAX / 4000 + 1, 0xbe)]);
    expect(() => new HpackDecoder().decode(bomb)).toThrow(
      expect.objectContaining({ code: ERROR.enhanceYourCalm }),
    );
  });
});

test('Huffman padding: up to 7 ones', () => {
  expect(decodeHuffman(bytes('1f'))).toBe('a');
  expect(decodeHuffman(bytes('18'))).toBeUndefined();
  expect(decodeHuffman(bytes('1fff'))).toBeUndefined();
});
