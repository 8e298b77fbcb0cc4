// What Apply counts while it writes is what a walk finds behind it, to the byte, on every kind of file system.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { digestOf } from '../../base/digest.ts';
import { makeCancelFlag, never } from '../../platform/jobs/cancellation.ts';
import { measureTree } from '../../platform/jobs/measure-tree.ts';
import type { Usage } from '../../snapshotters/snapshotter.ts';
import { loopFileSystem } from '../../../test/support/loop-fs.ts';
import { END, rawEntry, rawHeader, rawPax, type RawHeader } from '../../../test/support/tar.ts';
import { writeLayer, type WrittenLayer } from './layer-jobs.ts';
import { TAR_LIMITS } from './limits.ts';
import { rebaseLayers } from './rebase-layers.ts';
import { Rings, RingWriter } from './ring.ts';
import type { Target } from './target.ts';

const RING_BYTES = 16 << 20;
const DIGEST = digestOf('sha256', 'a'.repeat(64));

interface Disk extends AsyncDisposable {
  readonly path: string;
}

const DISKS: Readonly<Record<string, () => Promise<Disk>>> = {
  ext4: () => loopFileSystem('ext4', 512),
  'ext4 with small blocks': () => loopFileSystem('ext4', 512, ['-b', '1024']),
  'ext4 with data in inodes': () => loopFileSystem('ext4', 512, ['-O', 'inline_data', '-I', '256']),
  xfs: () => loopFileSystem('xfs', 512),
  btrfs: () => loopFileSystem('btrfs', 512),
  tmpfs: async () => {
    const path = mkdtempSync('/dev/shm/account-');
    execFileSync('mount', ['-t', 'tmpfs', 'account', path]);
    return {
      path,
      async [Symbol.asyncDispose]() {
        execFileSync('umount', [path]);
        rmSync(path, { recursive: true });
      },
    };
  },
};

const directory = (name: string): Buffer => rawEntry({ name, type: '5', mode: '0000755' });

/** Deterministic, and in no way compressible. */
function bytes(count: number): Buffer {
  const made = Buffer.alloc(count);
  for (let at = 0, value = 1; at < count; at++) {
    value = (value * 1103515245 + 12345) % 2 ** 31;
    made[at] = value >>> 16;
  }
  return made;
}

/** With a block of data every second block: an extent each. */
function sparse(name: string, regions: number, end: number): Buffer {
  const map = Array.from({ length: regions }, (_, n) => `${n * 8192},4096`).join(',');
  const records = [
    ['GNU.sparse.size', String(end)],
    ['GNU.sparse.numblocks', String(regions)],
    ['GNU.sparse.map', map],
  ] as const;
  return Buffer.concat([rawPax(records), rawEntry({ name }, bytes(regions * 4096))]);
}

function withXattrs(header: RawHeader, length: number, body = ''): Buffer {
  const value = bytes(length).toString('latin1').replaceAll('\0', ' ');
  return Buffer.concat([
    rawPax([['SCHILY.xattr.security.account', value]]),
    rawEntry(header, body),
  ]);
}

const SIZES = [
  5000, 0, 1, 60, 150, 151, 200, 512, 1024, 1025, 2048, 4095, 4096, 4097, 16_384, 16_385, 65_536,
  70_000, 900_000,
];

const files = (folder: string): Buffer[] =>
  SIZES.map((size) => rawEntry({ name: `${folder}/of ${size}` }, bytes(size)));

const links = [1, 59, 60, 100, 128, 129, 500, 1000].flatMap((length) => [
  rawPax([['linkpath', 'l'.repeat(length)]]),
  rawEntry({ name: `links/of ${length}`, type: '2' }),
]);

/** One more user with rwx. */
const DEFAULT_ACL = Buffer.from(
  '0200000001000700ffffffff02000700d204000004000500ffffffff10000700ffffffff20000500ffffffff',
  'hex',
).toString('latin1');

const LAYERS: Readonly<Record<string, readonly Buffer[]>> = {
  nothing: [],
  'files of all sizes': [directory('given'), ...files('given'), ...files('not/given/at/all')],
  'other entries': [
    directory('links'),
    ...links,
    rawEntry({ name: 'fifo', type: '6' }),
    rawEntry({ name: 'character', type: '3', major: '0000001', minor: '0000003' }),
    rawEntry({ name: 'block', type: '4', major: '0000007', minor: '0000001' }),
    rawEntry({ name: 'file' }, bytes(5000)),
    rawEntry({ name: 'hard', type: '1', link: 'file' }),
    rawEntry({ name: 'elsewhere/hard', type: '1', link: 'file' }),
    rawEntry({ name: 'file', type: '1', link: 'file' }),
  ],
  'attributes, some in blocks of their own': [
    withXattrs({ name: './', type: '5', mode: '0000755' }, 500),
    withXattrs({ name: 'd/', type: '5', mode: '0000755' }, 600),
    ...[10, 100, 200, 900].flatMap((length) => [
      withXattrs({ name: `d/${length} on an empty file` }, length),
      withXattrs({ name: `d/${length} on a file` }, length, 'body'),
      withXattrs({ name: `d/${length} on a large file` }, length, bytes(50_000).toString('latin1')),
      withXattrs({ name: `d/${length} on a fifo`, type: '6' }, length),
      withXattrs({ name: `d/${length} on a link`, type: '2', link: 'target' }, length),
    ]),
  ],
  'directories that hand access lists down': [
    rawPax([['SCHILY.xattr.system.posix_acl_default', DEFAULT_ACL]]),
    directory('listed'),
    ...files('listed'),
    ...files('listed/inside'),
  ],
  'holes and many extents': [
    // Its size is what tells of files like it.
    rawEntry({ name: 'whole' }, bytes(100)),
    sparse('s/two', 2, 12_288),
    sparse('s/one, and a hole', 1, 16_000),
    sparse('s/a hole of a few bytes', 0, 200),
    sparse('s/three', 3, 24_576),
    sparse('s/few', 5, 40_960),
    sparse('s/many', 300, 2_457_600),
    sparse('s/one of a terabyte', 1, 2 ** 40),
    sparse('s/none but a hole', 0, 10_000),
  ],
  'more directories than are kept open': [
    ...Array.from({ length: 1500 }, (_, n) => directory(`directory number ${n} with a long name`)),
    ...Array.from({ length: 1500 }, (_, n) =>
      rawEntry({ name: `i/${n}/f` }, bytes(n % 50 === 0 ? 20_000 : (n % 2) * 4096)),
    ),
    ...Array.from({ length: 3000 }, (_, n) => rawEntry({ name: `flat/${'n'.repeat(90)}${n}` })),
  ],
  'directories named twice, and late': [
    rawEntry({ name: 'late/d/f' }),
    directory('late/d'),
    directory('late'),
    directory('late/d/'),
    rawHeader({ name: './', type: '5', mode: '0000700' }),
  ],
};

/** Whatever a layer holds that takes something away again. */
const REPLACED: Readonly<Record<string, readonly Buffer[]>> = {
  'a file by a file': [rawEntry({ name: 'f' }, bytes(9000)), rawEntry({ name: 'f' }, 'small')],
  'a directory by a link': [
    rawEntry({ name: 'd/f' }),
    rawEntry({ name: 'd', type: '2', link: 'x' }),
  ],
  'a file by a directory': [rawEntry({ name: 'f' }), directory('f')],
  'a file by a hard link': [
    rawEntry({ name: 'f' }),
    rawEntry({ name: 'g' }),
    rawEntry({ name: 'g', type: '1', link: 'f' }),
  ],
};

function write(target: Target, entries: readonly Buffer[]): WrittenLayer {
  const archive = Buffer.concat([...entries, END]);
  // Nobody empties the ring meanwhile.
  expect(archive.length).toBeLessThan(RING_BYTES);
  const plain = new Rings().take();
  const ring = new RingWriter(plain);
  for (let at = 0; at < archive.length;) {
    const slot = ring.slot();
    const piece = archive.subarray(at, at + slot.length);
    slot.set(piece);
    ring.publish(piece.length);
    at += piece.length;
  }
  ring.end();
  const cancel = makeCancelFlag();
  const grown = { postMessage: () => undefined };
  return writeLayer({ plain, target, digest: DIGEST, limits: TAR_LIMITS, cancel, grown });
}

function walked(path: string): Usage {
  const { inodes = 0, size = 0 } = measureTree(path, never) ?? {};
  return { inodes, size };
}

const overlay = (upper: string, ...lowers: string[]): Target => ({
  kind: 'overlay',
  upper,
  lowers,
  xattrPrefix: 'trusted.',
});

for (const [fileSystem, make] of Object.entries(DISKS)) {
  describe(fileSystem, () => {
    let disk: Disk;
    let places = 0;
    beforeAll(async () => void (disk = await make()), 60_000);
    afterAll(async () => disk[Symbol.asyncDispose]());

    const place = (): string => {
      const path = join(disk.path, `place ${places++}`);
      mkdirSync(path);
      return path;
    };
    for (const [what, entries] of Object.entries(LAYERS)) {
      test(`${what}: a directory`, () => {
        const path = place();
        const { usage } = write({ kind: 'directory', path }, entries);
        expect(usage).toEqual(walked(path));
        execFileSync('sync', ['-f', path]);
        expect(usage).toEqual(walked(path));
      });

      test(`${what}: an upper directory`, () => {
        const [upper, lower] = [place(), place()];
        write({ kind: 'directory', path: lower }, [
          directory('d'),
          rawEntry({ name: 'gone' }),
          rawEntry({ name: 'not/given/away' }),
          rawEntry({ name: 'links/opaque/f' }),
        ]);
        const marks = [
          rawEntry({ name: '.wh.gone' }),
          rawEntry({ name: 'links/opaque/.wh..wh..opq' }),
        ];
        const { usage } = write(overlay(upper, lower), [...entries, ...marks]);
        expect(usage).toEqual(walked(upper));
      });

      test(`${what}: staged, then rebased`, () => {
        const [upper, staged, lower] = [place(), place(), place()];
        expect(write({ kind: 'stage', upper, staged }, entries).usage).toBeUndefined();
        const usage = rebaseLayers({
          staged,
          upper,
          lowers: [lower],
          owner: { uid: 0, gid: 0 },
          xattrPrefix: 'trusted.',
          limits: TAR_LIMITS,
          cancel: makeCancelFlag(),
        });
        expect(usage).toEqual(walked(upper));
      });
    }

    for (const [what, entries] of Object.entries(REPLACED)) {
      test(`${what}: is not counted`, () => {
        const path = place();
        expect(write({ kind: 'directory', path }, entries).usage).toBeUndefined();
        expect(readdirSync(path)).not.toEqual([]);
      });
    }

    test('what was there before is not known', () => {
      const path = place();
      writeFileSync(join(path, 'before'), '');
      expect(write({ kind: 'directory', path }, files('d')).usage).toBeUndefined();
    });

    test('a lower file that a hard link brings up is not counted', () => {
      const [upper, lower] = [place(), place()];
      writeFileSync(join(lower, 'f'), 'body');
      const link = rawEntry({ name: 'g', type: '1', link: 'f' });
      expect(write(overlay(upper, lower), [link]).usage).toBeUndefined();
    });
  });
}
