import { expect, test } from 'vitest';
import {
  after,
  expectEntries,
  expectEntry,
  expectRefused,
  holding,
  tar,
  type Expected,
} from '../../../test/support/expect-tar.ts';
import { GNU, rawEntry, rawHeader, rawLongName, rawPax } from '../../../test/support/tar.ts';

test('GNU long names and links, alone and together, up to their NUL', () => {
  const long = 'd/'.repeat(300);
  const link = rawHeader({ type: '2', link: 'short', magic: GNU });
  expectEntry([rawLongName('L', long), link], { type: 'symlink', path: long, link: 'short' });
  expectEntry([rawLongName('K', long), rawLongName('L', 'name'), link], {
    type: 'symlink',
    path: 'name',
    link: long,
  });
  expectEntry([rawLongName('L', 'ok\0/../../x'), rawHeader()], { path: 'ok' });
  expectEntry([rawLongName('L', ''), rawHeader()], { path: 'f' });
  expectEntry([rawEntry({ type: 'L' }, 'no NUL'), rawHeader()], { path: 'no NUL' });
  expectEntry([rawLongName('L', 'first'), rawLongName('L', 'last'), rawHeader()], { path: 'last' });
});

const PAX: readonly (readonly [readonly (readonly [string, string])[], Expected])[] = [
  [[['path', 'a=b\nc/']], { path: 'a=b\nc/' }],
  [[['path', '\xe9\xff']], { path: '\xe9\xff' }],
  [
    [
      ['uid', '4294967294'],
      ['gid', '2097152'],
    ],
    { uid: 4294967294, gid: 2097152 },
  ],
  [
    [
      ['uid', '1'],
      ['uid', '2'],
    ],
    { uid: 2 },
  ],
  [
    [
      ['path', 'gone'],
      ['path', ''],
      ['uid', ''],
      ['mtime', ''],
    ],
    {},
  ],
  [[['mtime', '1600000000.123456789']], { mtime: [1600000000, 123456789] }],
  [[['mtime', '1.12345678999999']], { mtime: [1, 123456789] }],
  [[['mtime', '5.']], { mtime: [5, 0] }],
  [[['mtime', '5.5']], { mtime: [5, 500000000] }],
  [[['mtime', '-1']], { mtime: [-1, 0] }],
  [[['mtime', '-1.5']], { mtime: [-2, 500000000] }],
  [[['mtime', '-0.000000001']], { mtime: [-1, 999999999] }],
  [[['mtime', '-0']], { mtime: [0, 0] }],
  [
    [
      ['atime', '7.5'],
      ['ctime', 'not read'],
    ],
    { atime: [7, 500000000] },
  ],
  [
    [
      ['SCHILY.xattr.user.a', 'x=\n\0\xff'],
      ['SCHILY.xattr.user.empty', ''],
    ],
    { xattrs: { 'user.a': 'x=\n\0\xff', 'user.empty': '' } },
  ],
  [
    [
      ['SCHILY.xattr.user.a', '1'],
      ['SCHILY.xattr.user.a', '2'],
    ],
    { xattrs: { 'user.a': '2' } },
  ],
  [[['SCHILY.xattr.user.\xc3\xbc', '1']], { xattrs: { 'user.ü': '1' } }],
  [
    [
      ['LIBARCHIVE.xattr.user.a', 'dg'],
      ['comment', 'a=b\nc'],
      ['weird \xff', '\0'],
    ],
    {},
  ],
  [[['linkpath', 'of a file']], {}],
];

test('PAX records: the last of each counts, an empty one takes it back, others are passed over', () => {
  for (const [records, expected] of PAX) {
    expectEntry([rawPax(records), rawEntry({})], expected);
    // Solaris's typeflag for the same.
    expectEntry([rawPax(records, 'X'), rawEntry({})], expected);
  }
  const link = rawEntry({ type: '1', link: 'short' });
  expectEntry([rawPax([['linkpath', 'l'.repeat(4000)]]), link], {
    type: 'hardlink',
    link: 'l'.repeat(4000),
  });
});

test('the size of a PAX record counts where the header has another', () => {
  const body = 'y'.repeat(700);
  const entry = Buffer.concat([rawHeader({ size: 0 }), rawEntry({}, body).subarray(512)]);
  expectEntry([rawPax([['size', '700']]), entry], holding(body));
});

test('a later extended header replaces an earlier one, a GNU name goes before both', () => {
  const first = rawPax([
    ['path', 'first'],
    ['uid', '7'],
  ]);
  expectEntry([first, rawPax([['path', 'second']]), rawEntry({})], { path: 'second' });
  expectEntry([first, rawLongName('L', 'gnu'), rawEntry({})], { path: 'gnu', uid: 7 });
  expectEntry([rawLongName('L', 'gnu'), first, rawEntry({})], { path: 'gnu', uid: 7 });
});

test('extended headers speak of one entry, global ones of none', () => {
  const global = rawPax(
    [
      ['uid', '77'],
      ['comment', 'x'],
    ],
    'g',
  );
  expectEntries(tar(global, rawPax([['uid', '5']]), rawEntry({}), global, after), [
    { uid: 5 },
    { path: 'after', ...holding('end') },
  ]);
  expectEntry([rawPax([]), rawEntry({})], {});
  expectRefused(tar(rawPax([['path', 'a']]), global, after), 'parts an entry from its headers');
});

const BAD_RECORDS: readonly (readonly [string, string])[] = [
  ['0 path=x\n', 'has no value'],
  ['999 path=x\n', 'is longer than its header'],
  ['5 path=x\n', 'has no value'],
  ['-10 path=x\n', 'has no length'],
  ['+11 path=xy\n', 'has no length'],
  ['18446744073709551627 path=x\n', 'has no length'],
  ['9007199254740993 path=x\n', 'is longer than its header'],
  ['10path=xyz\n', 'has no length'],
  ['9 pathxy\n', 'has no value'],
  ['7 =abc\n', 'has no keyword'],
  ['11 path=xyzw', 'does not end with a newline'],
  ['11 path=a\0\n', 'has a NUL in a name'],
  ['10 a\0b=cd\n', 'has a NUL in its keyword'],
  ['19 SCHILY.xattr.=v\n', 'attribute without a name'],
  ['20 SCHILY.xattr.\xff=v\n', 'name is not UTF-8'],
  ['11 size=-1\n', 'size is "-1", which is no number'],
  ['12 size=0xa\n', 'size is "0xa", which is no number'],
  ['29 size=18446744073709551626\n', 'size is beyond 2^53'],
  ['13 mtime=NaN\n', 'mtime is "NaN", which is no time'],
  ['12 mtime=.5\n', 'mtime is ".5", which is no time'],
  ['6 a=b\n11 path=xyzw', 'the record at byte 6'],
];

test('malformed records are refused, global ones too', () => {
  for (const [body, message] of BAD_RECORDS) {
    const bytes = Buffer.from(body, 'latin1');
    const entry = rawEntry({ name: 'PaxHeaders/f', type: 'x' }, bytes);
    const error = expectRefused(tar(rawEntry({}), entry, after), message);
    expect(error.message).toContain('tar header at byte 512 of "PaxHeaders/f": ');
  }
  expectRefused(tar(rawEntry({ type: 'g' }, '9 pathxy\n')), 'has no value');
});
