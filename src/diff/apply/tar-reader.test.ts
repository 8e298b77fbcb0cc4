import { buffer } from 'node:stream/consumers';
import { pack, type Header } from 'tar-stream';
import { expect, test } from 'vitest';
import {
  binary,
  after,
  expectEntries,
  expectEntry,
  expectRefused,
  holding,
  tar,
  type Expected,
} from '../../../test/support/expect-tar.ts';
import { readTar } from '../../../test/support/read-tar.ts';
import {
  END,
  GNU,
  rawEntry,
  rawHeader,
  rawLongName,
  rawPax,
  V7,
  type RawHeader,
} from '../../../test/support/tar.ts';
import { OpError } from '../../base/errors.ts';
import { TAR_LIMITS, type TarLimits } from './limits.ts';
import { TarReader } from './tar-reader.ts';

test('files of every length around a block are read at every chunk boundary', () => {
  const lengths = [0, 1, 511, 512, 513, 1024, 3000];
  const bytes = lengths.map((length) => rawEntry({ name: `f${length}` }, 'x'.repeat(length)));
  const expected = lengths.map((length) => ({
    path: `f${length}`,
    size: length,
    body: length === 0 ? [] : [[0, 'x'.repeat(length)] as const],
  }));
  expectEntries(tar(...bytes), expected);
});

test('the offset of an entry is that of its own header', () => {
  const { entries } = readTar(tar(rawPax([['path', 'a']]), rawEntry({}, 'x'), after));
  expect(entries.map(({ offset }) => offset)).toEqual([1024, 2048]);
});

const TYPES: readonly (readonly [RawHeader, Expected])[] = [
  [{ type: '\0' }, { type: 'file' }],
  [
    { type: '\0', name: 'd/' },
    { type: 'directory', path: 'd/' },
  ],
  [
    { type: '0', name: 'd/' },
    { type: 'file', path: 'd/' },
  ],
  [
    { type: '1', link: 'to' },
    { type: 'hardlink', link: 'to' },
  ],
  [
    { type: '2', link: '/to' },
    { type: 'symlink', link: '/to' },
  ],
  [
    { type: '3', major: '0000001', minor: '0000003' },
    { type: 'character-device', device: [1, 3] },
  ],
  [
    { type: '4', major: '7777', minor: '3777777 ' },
    { type: 'block-device', device: [0xfff, 0xfffff] },
  ],
  [{ type: '5' }, { type: 'directory' }],
  [{ type: '6', major: '0000001' }, { type: 'fifo' }],
  [{ type: '7' }, { type: 'file' }],
];

test('typeflags, and what belongs to their type only', () => {
  for (const [fields, expected] of TYPES) expectEntry([rawHeader(fields)], expected);
  expectEntry([rawHeader({ link: 'ignored' })], {});
  // No bytes follow these, whatever size the writer gave.
  for (const type of ['1', '2', '3', '4', '5', '6']) {
    const { entries } = readTar(tar(rawHeader({ type, size: 700 }), after));
    expect(entries.map(({ size }) => size)).toEqual([0, 3]);
  }
});

test('unknown typeflags are refused', () => {
  for (const type of ['!', '\xff', 'M', 'D', 'V', 'N', 'A', 's']) {
    const error = expectRefused(tar(rawHeader({ type })), 'has the unknown type');
    expect(error.code).toBe('InvalidArgument');
  }
});

test('names: full fields, prefixes of each dialect, bytes that are no text', () => {
  expectEntry([rawHeader({ name: 'n'.repeat(100) })], { path: 'n'.repeat(100) });
  expectEntry([rawHeader({ name: '\xff\xfe\n' })], { path: '\xff\xfe\n' });
  expectEntry([rawHeader({ name: '' })], { path: '' });
  expectEntry([rawHeader({ prefix: 'p'.repeat(155) })], { path: `${'p'.repeat(155)}/f` });
  expectEntry([rawHeader({ prefix: 'p', magic: GNU })], {});
  expectEntry([rawHeader({ prefix: 'p', magic: V7, major: 'junk' })], {});
  const star = [
    rawHeader({
      prefix: 'p',
      more: [
        [345 + 131, '0'],
        [508, 'tar\0'],
      ],
    }),
  ];
  expectEntry(star, { path: 'p/f' });
  expectEntry([rawHeader({ name: 'ok\0../../x' })], { path: 'ok' });
});

test('numbers: blanks, NULs, no terminator, base-256', () => {
  const octal = { mode: '   644 \0', uid: '     17 ', gid: '21\0\0\0\0\0\0', mtime: '7 \0\0' };
  expectEntry([rawHeader(octal)], { uid: 0o17, gid: 0o21, mtime: [7, 0] });
  const full = { mode: '00000644', uid: '17777777', mtime: '777777777777' };
  expectEntry([rawHeader(full)], { uid: 0o17777777, mtime: [0o777777777777, 0] });
  expectEntry([rawHeader({ mode: '\0\0\0\0\0\0\0\0', mtime: '            ' })], { mode: 0 });
  expectEntry([rawHeader({ uid: binary(2n ** 32n - 2n, 8), mtime: binary(-1n, 12) })], {
    uid: 2 ** 32 - 2,
    mtime: [-1, 0],
  });
  expectEntry([rawHeader({ mtime: binary(-62135596800n, 12) })], { mtime: [-62135596800, 0] });
  expectEntry([rawHeader({ size: binary(3n, 12) }), Buffer.alloc(512, 'abc')], {
    size: 3,
    body: [[0, 'abc']],
  });
  expectEntry([rawHeader({ mode: '0104755' })], { mode: 0o4755 });
  expectEntry([rawHeader({ mode: binary(2n ** 40n + 0o644n, 8) })], {});
});

const BAD_NUMBERS: readonly (readonly [RawHeader, string])[] = [
  [{ size: '-0000000012' }, 'size is no number'],
  [{ size: '+0_0000_012' }, 'size is no number'],
  [{ size: '0x00000089a' }, 'size is no number'],
  [{ size: '12 34' }, 'size is no number'],
  [{ size: binary(-1n, 12) }, 'size is -1'],
  [{ size: binary(2n ** 53n, 12) }, 'size is beyond 2^53'],
  [{ size: binary(2n ** 64n + 10n, 12) }, 'size is beyond 2^53'],
  [{ type: 'x', size: binary(-512n, 12) }, 'size is -512'],
  [{ uid: binary(2n ** 32n - 1n, 8) }, 'uid is 4294967295'],
  [{ gid: binary(-1n, 8) }, 'gid is -1'],
  [{ mode: binary(-1n, 8) }, 'mode is -1'],
  [{ mtime: binary(2n ** 90n, 12) }, 'mtime is beyond 2^53'],
  [{ type: '3', major: binary(4096n, 8) }, 'device major is 4096'],
  [{ type: '3', minor: binary(2n ** 20n, 8) }, 'device minor is 1048576'],
  [{ type: '4', minor: binary(-1n, 8) }, 'device minor is -1'],
];

test('numbers that are none, or more than the kernel takes, are refused', () => {
  for (const [fields, message] of BAD_NUMBERS) expectRefused(tar(rawHeader(fields)), message);
});

test('checksums: signed ones too, wrong ones not', () => {
  const name = 'caf\xe9';
  const unsigned = Number.parseInt(rawHeader({ name }).toString('latin1', 148, 154), 8);
  const signed = (unsigned - 256).toString(8).padStart(6, '0');
  expectEntry([rawHeader({ name, checksum: `${signed}\0 ` })], { path: name });
  const wrong = 'checksum of its header is wrong';
  expectRefused(tar(rawHeader({ checksum: '012345\0 ' })), wrong);
  expectRefused(tar(rawHeader({ checksum: '\0\0\0\0\0\0\0\0' })), wrong);
  expectRefused(tar(rawHeader({ checksum: 'no sum  ' })), 'checksum is no number');
});

test('two blocks of zeros end an archive, whatever follows; one or none at its end will do', () => {
  const file = rawEntry({}, 'x');
  const zeros = Buffer.alloc(512);
  const one = [holding('x')];
  expectEntries(Buffer.concat([file, END, Buffer.alloc(9000)]), one);
  expectEntries(Buffer.concat([file, END, Buffer.from('garbage'), after]), one);
  expectEntries(Buffer.concat([file, zeros]), one);
  expectEntries(file, one);
  expectEntries(file.subarray(0, 513), one);
  expectEntries(Buffer.alloc(0), []);
  expectEntries(END, []);
  expectRefused(Buffer.concat([file, zeros, after]), 'a single block of zeros is in front of it');
});

test('an archive that is cut anywhere else is refused', () => {
  const whole = Buffer.concat([
    rawEntry({}, 'x'.repeat(700)),
    rawPax([['path', 'p'.repeat(600)]]),
    rawLongName('K', 'short'),
    rawEntry({}, 'y'.repeat(5)),
  ]);
  const mayEnd = (at: number): boolean =>
    at === 0 || (at >= 1212 && at <= 1536) || at >= whole.length - 507;
  for (let at = 0; at < whole.length; at++) {
    const { error } = readTar(whole.subarray(0, at));
    expect(error?.code, `cut at ${at}`).toBe(mayEnd(at) ? undefined : 'DataLoss');
  }
  expect(expectRefused(whole.subarray(0, 600), 'archive ends').message).toBe(
    'tar header at byte 0 of "f": the archive ends within its body',
  );
  expect(expectRefused(whole.subarray(0, 1600), 'archive ends').message).toBe(
    'tar header at byte 1536: the archive ends within its header',
  );
  expectRefused(tar(rawPax([['path', 'a']])), 'ends where an extension header announced an entry');
});

const LIMITS: readonly (readonly [Partial<TarLimits>, readonly Buffer[], string])[] = [
  [{ entriesMax: 1 }, [rawEntry({}), after], 'more than 1 entries'],
  [{ pathBytesMax: 10 }, [rawEntry({ name: 'n'.repeat(11) })], 'name has 11 bytes, more than 10'],
  [{ pathBytesMax: 10 }, [rawEntry({ type: '2', link: 'n'.repeat(11) })], 'link has 11 bytes'],
  [{ extensionBytesMax: 99 }, [rawLongName('L', 'n'.repeat(99)), rawEntry({})], 'exceed 99 bytes'],
  [{ extensionBytesMax: 99 }, [rawHeader({ type: 'x', size: binary(2n ** 52n, 12) })], 'exceed 99'],
  [
    { extensionBytesMax: 99 },
    [rawLongName('L', 'n'.repeat(50)), rawLongName('K', 'n'.repeat(50)), rawEntry({})],
    'exceed 99 bytes',
  ],
  [{ fileBytesMax: 9 }, [rawEntry({}, '0123456789')], 'size is 10, which is not between 0 and 9'],
];

test('limits hold', () => {
  for (const [limits, parts, message] of LIMITS) expectRefused(tar(...parts), message, limits);
  const { error } = readTar(tar(after), { limits: { plainBytesMax: 2047 }, chunkBytes: 1 });
  expect(error?.message).toContain('the archive has more than 2047 bytes');
});

test('what extensions of earlier entries took does not count', () => {
  const each = [rawLongName('L', 'n'.repeat(60)), rawEntry({})];
  const { error } = readTar(tar(...each, ...each), { limits: { extensionBytesMax: 99 } });
  expect(error).toBeUndefined();
});

test('a message quotes the name and says where and what', () => {
  const { error } = readTar(tar(after, rawHeader({ name: 'a\n"\x1b\xff', uid: 'x' })));
  expect(error?.code).toBe('InvalidArgument');
  expect(error?.message).toBe(
    'tar header at byte 1024 of "a\\n\\"\\u001b\ufffd": its uid is no number',
  );
});

const failing = new TarReader(
  {
    begin: () => {
      throw new OpError('ResourceExhausted', 'the disk is full');
    },
    body: () => undefined,
    end: () => undefined,
  },
  TAR_LIMITS,
);

test('an error of the sink comes through as it is, and ends the reading', () => {
  expect(() => failing.push(after)).toThrow(new OpError('ResourceExhausted', 'the disk is full'));
  expect(() => failing.push(after)).toThrow('used after it failed');
  expect(() => failing.finish()).toThrow('used after it failed');
});

test('bodies are parts of the chunk, not copies', () => {
  const bytes = tar(rawEntry({}, 'x'.repeat(5000)));
  const bodies: Uint8Array[] = [];
  const sink = {
    begin: () => undefined,
    body: (part: Uint8Array) => bodies.push(part),
    end: () => undefined,
  };
  new TarReader(sink, TAR_LIMITS).push(bytes);
  expect(bodies.map((body) => [body.buffer === bytes.buffer, body.length])).toEqual([[true, 5000]]);
});

const PACKED: readonly (readonly [Partial<Header> & { name: string }, string, Expected])[] = [
  [
    { name: 'd', type: 'directory', mode: 0o1777 },
    '',
    { type: 'directory', path: 'd', mode: 0o1777 },
  ],
  [{ name: 'd/f', uid: 1000, gid: 1000 }, 'hello', { path: 'd/f', uid: 1000, gid: 1000 }],
  [{ name: `${'long/'.repeat(60)}f` }, '', { path: `${'long/'.repeat(60)}f` }],
  [{ name: 'grüße' }, '', { path: Buffer.from('grüße').toString('latin1') }],
  [
    { name: 's', type: 'symlink', linkname: 't'.repeat(200) },
    '',
    { type: 'symlink', path: 's', link: 't'.repeat(200) },
  ],
  [{ name: 'h', type: 'link', linkname: 'd/f' }, '', { type: 'hardlink', path: 'h', link: 'd/f' }],
  [
    { name: 'n', type: 'character-device', devmajor: 1, devminor: 3 },
    '',
    { type: 'character-device', path: 'n', device: [1, 3] },
  ],
  [{ name: 'p', type: 'fifo' }, '', { type: 'fifo', path: 'p' }],
];

test('archives of another writer', async () => {
  const packer = pack();
  for (const [headers, body] of PACKED)
    packer.entry({ mtime: new Date(5000), mode: 0o644, ...headers }, body);
  packer.finalize();
  const expected = PACKED.map(([, body, each]) => ({
    mtime: [5, 0] as const,
    ...each,
    ...(body === '' ? {} : holding(body)),
  }));
  expectEntries(await buffer(packer), expected);
});
