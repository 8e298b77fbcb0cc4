import { expect, test } from 'vitest';
import {
  binary,
  after,
  expectEntry,
  expectRefused,
  tar,
  type Expected,
} from '../../../test/support/expect-tar.ts';
import { readTar } from '../../../test/support/read-tar.ts';
import { GNU, rawEntry, rawHeader, rawPax } from '../../../test/support/tar.ts';

const HEAD = 'h'.repeat(512);
const TAIL = 'tail!';
/** Two regions of a file of 5000 bytes that ends with a hole. */
const REGIONS = [
  [512, 512],
  [4000, 5],
  [5000, 0],
] as const;
const holes: Expected = {
  size: 5000,
  body: [
    [512, HEAD],
    [4000, TAIL],
  ],
};

const gnuRegion = ([offset, length]: readonly [number, number]): string =>
  [offset, length].map((each) => `${each.toString(8).padStart(11, '0')}\0`).join('');

/** GNU tar's own: four regions in the header, 21 in each block behind it. */
function gnuSparse(
  regions: readonly (readonly [number, number])[],
  realSize = '00000011610',
): Buffer[] {
  const more: [number, string][] = regions
    .slice(0, 4)
    .map((region, index) => [386 + 24 * index, gnuRegion(region)]);
  const blocks: Buffer[] = [];
  for (let at = 4; at < regions.length; at += 21) {
    const block = Buffer.alloc(512);
    block.write(
      regions
        .slice(at, at + 21)
        .map(gnuRegion)
        .join(''),
      'latin1',
    );
    if (at + 21 < regions.length) block[504] = 1;
    blocks.push(block);
  }
  more.push([483, realSize], [482, blocks.length > 0 ? '\u0001' : '\0']);
  const stored = rawEntry({}, HEAD + TAIL).subarray(512);
  const header = { type: 'S', magic: GNU, size: HEAD.length + TAIL.length, more };
  return [rawHeader(header), ...blocks, stored];
}

const paxSparse = (
  records: readonly (readonly [string, string])[],
  body = HEAD + TAIL,
): Buffer[] => [rawPax(records), rawEntry({ name: 'GNUSparseFile.0/f' }, body)];

const MAJOR_1: readonly (readonly [string, string])[] = [
  ['GNU.sparse.major', '1'],
  ['GNU.sparse.minor', '0'],
  ['GNU.sparse.name', 'f'],
  ['GNU.sparse.realsize', '5000'],
];

const textMap = (text: string): string =>
  text.padEnd(Math.ceil(text.length / 512) * 512, '\0') + HEAD + TAIL;

test('sparse files of all four formats', () => {
  expectEntry(gnuSparse(REGIONS), holes);
  expectEntry(
    paxSparse([
      ['path', 'f'],
      ['GNU.sparse.size', '5000'],
      ['GNU.sparse.numblocks', '3'],
      ...REGIONS.flatMap(([offset, length]) => [
        ['GNU.sparse.offset', String(offset)] as const,
        ['GNU.sparse.numbytes', String(length)] as const,
      ]),
    ]),
    holes,
  );
  expectEntry(
    paxSparse([
      ['GNU.sparse.size', '5000'],
      ['GNU.sparse.numblocks', '3'],
      ['GNU.sparse.name', 'f'],
      ['GNU.sparse.map', REGIONS.join(',')],
    ]),
    holes,
  );
  expectEntry(paxSparse(MAJOR_1, textMap('3\n512\n512\n4000\n5\n5000\n0\n')), holes);
  expectEntry(paxSparse([...MAJOR_1, ['path', 'x']], textMap('2\n512\n512\n4000\n5\n')), holes);
});

test('sparse maps of many blocks, and files that are one hole', () => {
  const empty = Array.from({ length: 60 }, (_, at) => [at, 0] as const);
  expectEntry(gnuSparse([...empty, ...REGIONS]), holes);
  const lines = [63, ...[...empty, ...REGIONS].flat()].map((each) => `${each}\n`.padStart(18, '0'));
  expectEntry(paxSparse(MAJOR_1, textMap(lines.join(''))), holes);
  const hole = [
    rawHeader({
      type: 'S',
      magic: GNU,
      more: [
        [386, gnuRegion([9, 0])],
        [483, '11'],
      ],
    }),
  ];
  expectEntry(hole, { size: 9 });
});

const BAD_MAPS: readonly (readonly [readonly Buffer[], string])[] = [
  [
    gnuSparse([
      [0, 512],
      [256, 5],
    ]),
    'overlap or go backwards',
  ],
  [
    gnuSparse([
      [8, 512],
      [0, 5],
    ]),
    'overlap or go backwards',
  ],
  [
    gnuSparse([
      [0, 512],
      [4996, 5],
    ]),
    'beyond its end',
  ],
  [
    gnuSparse([
      [0, 512],
      [512, 6],
    ]),
    'speaks of 518 bytes, 517 are stored',
  ],
  [gnuSparse([[0, 512]]), 'speaks of 512 bytes, 517 are stored'],
  [gnuSparse(REGIONS, binary(-1n, 12)), 'size with holes has a negative number'],
  [gnuSparse(REGIONS, binary(2n ** 62n, 12)), 'size with holes is beyond 2^53'],
  [[rawHeader({ type: 'S' })], 'sparse file of GNU tar in an archive that is not'],
  [paxSparse(MAJOR_1, textMap('two\n')), 'not made of numbers'],
  [paxSparse(MAJOR_1, textMap('1\n-512\n512\n')), 'not made of numbers'],
  [paxSparse(MAJOR_1, textMap('1\n\n')), 'not made of numbers'],
  [paxSparse(MAJOR_1, textMap('1\n9007199254740993\n1\n')), 'a number beyond 2^53'],
  [paxSparse(MAJOR_1, textMap('1099511627776\n')), 'more than 65536 regions'],
  [paxSparse(MAJOR_1, '1\n0\n'), 'longer than what is stored'],
  [paxSparse(MAJOR_1, '0'.repeat(1024)), 'longer than what is stored'],
  [
    paxSparse([
      ['GNU.sparse.major', '2'],
      ['GNU.sparse.minor', '0'],
    ]),
    'version "2.0"',
  ],
  [
    paxSparse([
      ['GNU.sparse.map', '0,512,1024'],
      ['GNU.sparse.numblocks', '1'],
    ]),
    'another number',
  ],
  [
    paxSparse([
      ['GNU.sparse.map', '0,-1'],
      ['GNU.sparse.numblocks', '1'],
    ]),
    'is no number',
  ],
  [
    paxSparse([
      ['GNU.sparse.numbytes', '1'],
      ['GNU.sparse.offset', '1'],
    ]),
    'after each offset',
  ],
  [[rawPax(MAJOR_1), rawHeader({ type: '5' })], 'it is a directory with a sparse map'],
];

test('sparse maps that contradict themselves or the file are refused', () => {
  for (const [parts, message] of BAD_MAPS) expectRefused(tar(...parts, after), message);
});

/** Of which a map in GNU's format needs a block behind the header. */
const MANY = [[0, 0], [0, 0], ...REGIONS] as const;

test('limits hold', () => {
  expectRefused(tar(...gnuSparse(MANY)), 'exceed 511 bytes', { extensionBytesMax: 511 });
  expectRefused(tar(...gnuSparse(REGIONS)), 'more than 2 regions', { sparseRegionsMax: 2 });
  const stored = tar(...paxSparse(MAJOR_1, textMap('3\n')));
  expectRefused(stored, 'more than 2 regions', { sparseRegionsMax: 2 });
  expectRefused(tar(...gnuSparse(REGIONS)), 'size is 5000', { fileBytesMax: 4999 });
});

test('what the map of an earlier entry took does not count', () => {
  const twice = tar(...gnuSparse(MANY), ...gnuSparse(MANY));
  expect(readTar(twice, { limits: { extensionBytesMax: 512 } }).error).toBeUndefined();
});

test('a sparse file that is cut anywhere but in its padding is refused', () => {
  for (const whole of [gnuSparse(MANY), paxSparse(MAJOR_1, textMap('1\n0\n517\n'))]) {
    const bytes = Buffer.concat(whole);
    for (let at = 1; at < bytes.length; at++) {
      const { error } = readTar(bytes.subarray(0, at));
      expect(error?.code, `cut at ${at}`).toBe(at >= bytes.length - 507 ? undefined : 'DataLoss');
    }
  }
});
