// Damaged streams are inflated or refused; random layers over few names give the same tree in one directory as
// over the layers of an overlay, known at once or later, and nothing gets out of any.
import { mkdirSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { digestOf } from '../../src/base/digest.ts';
import { isOpError } from '../../src/base/errors.ts';
import { makeInflater } from '../../src/diff/apply/inflate.ts';
import { LayerWriter } from '../../src/diff/apply/layer-writer.ts';
import { TAR_LIMITS } from '../../src/diff/apply/limits.ts';
import { TarReader } from '../../src/diff/apply/tar-reader.ts';
import { rebaseLayers } from '../../src/diff/apply/rebase-layers.ts';
import { LayerStage } from '../../src/diff/apply/stage-layer.ts';
import { openTree, type TreeTarget } from '../../src/diff/apply/target.ts';
import { makeCancelFlag, never } from '../../src/platform/jobs/cancellation.ts';
import { mountDetached } from '../../src/platform/linux/detached-mount.ts';
import { close } from '../../src/platform/linux/files.ts';
import { loopFileSystem } from '../support/loop-fs.ts';
import { numberFromEnv, testSeed } from '../support/random.ts';
import { run } from '../support/run.ts';
import { END, rawEntry } from '../support/tar.ts';
import { archiveOf, madeEntries, mutated, mutations } from './archives.ts';

const CASES = numberFromEnv('FUZZ_CASES', 10_000);
/** Each makes directories and a mount. None has an entry of the root: overlay has its topmost one only. */
const TREES = Math.ceil(CASES / 10);

const parameters = (numRuns: number): fc.Parameters<unknown> => {
  const seed = testSeed();
  process.stdout.write(`BALLAST_SEED=${seed}\n`);
  return { seed, numRuns };
};

function inflated(stream: Buffer, kind: 'gzip' | 'zstd', chunkBytes: number): Buffer | string {
  const slot = Buffer.alloc(4096);
  const out: Buffer[] = [];
  const publish = (length: number): void => void out.push(Buffer.from(slot.subarray(0, length)));
  try {
    const inflater = makeInflater(kind, { slot: () => slot, publish });
    for (let at = 0; at < stream.length; at += chunkBytes) {
      inflater.push(stream.subarray(at, at + chunkBytes));
    }
    inflater.finish();
    return Buffer.concat(out);
  } catch (error) {
    if (!isOpError(error, 'DataLoss')) throw error;
    return 'refused';
  }
}

test('damaged streams are inflated or refused, the same in chunks of any size', () => {
  const property = fc.property(
    fc.array(madeEntries, { minLength: 1, maxLength: 3, size: 'max' }),
    fc.array(mutations, { maxLength: 3 }),
    fc.constantFrom('gzip', 'zstd'),
    fc.integer({ min: 1, max: 700 }),
    (entries, changes, kind, chunkBytes) => {
      const plain = archiveOf(entries);
      const whole = kind === 'gzip' ? gzipSync(plain) : zstdCompressSync(plain);
      const damaged = changes.reduce(mutated, whole);
      const result = inflated(damaged, kind, damaged.length + 1);
      expect(inflated(damaged, kind, chunkBytes)).toEqual(result);
      if (damaged.equals(whole)) expect(result).toEqual(plain);
    },
  );
  fc.assert(property, parameters(CASES));
});

const oneOf = (words: string) => fc.constantFrom(...words.split(' '));
const names = oneOf('a b l a/b a/c b/a l/b a/b/c l/b/c m/x a/../b /b/c');
const marks = oneOf(
  '.wh.a .wh.b a/.wh.b l/.wh.b a/b/.wh.c .wh.l .wh..wh..opq a/.wh..wh..opq l/.wh..wh..opq a/b/.wh..wh..opq',
);
const targets = oneOf('a /a b ../a ../../outside /outside l nowhere');
const entries = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ type: fc.constant('0'), name: names, link: fc.constant('') }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('5'), name: names, link: fc.constant('') }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('2'), name: names, link: targets }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('1'), name: names, link: names }) },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('0'), name: marks, link: fc.constant('') }),
  },
);
const layers = fc.array(fc.array(entries, { maxLength: 6 }), { minLength: 1, maxLength: 4 });

type Layer = readonly { readonly type: string; readonly name: string; readonly link: string }[];

const archive = (layer: Layer, number: number): Buffer =>
  Buffer.concat([
    ...layer.map((entry, at) => {
      // Overlay cannot change a file of a layer below under all its names: links change nothing here.
      const mode = entry.type === '5' ? `000075${number}` : '0000640';
      const body = entry.type === '0' ? `layer ${number}, entry ${at}` : '';
      return rawEntry({ ...entry, mode }, body);
    }),
    END,
  ]);

/** @returns whether it was taken */
function applied(target: TreeTarget, layer: Buffer): boolean {
  using tree = openTree(target, never);
  using writer = new LayerWriter(tree, TAR_LIMITS);
  try {
    const reader = new TarReader(writer, TAR_LIMITS);
    reader.push(layer);
    reader.finish();
    writer.finish();
    return true;
  } catch (error) {
    if (!isOpError(error, 'InvalidArgument')) throw error;
    return false;
  }
}

/** The same by way of a stage, as if the parent were not known yet. */
function rebased(target: TreeTarget & { kind: 'overlay' }, layer: Buffer): boolean {
  const staged = `${target.upper}-staged`;
  mkdirSync(staged);
  try {
    using stage = new LayerStage({ kind: 'stage', upper: target.upper, staged });
    const reader = new TarReader(stage, TAR_LIMITS);
    reader.push(layer);
    reader.finish();
    stage.finish();
    stage.keep(digestOf('sha256', '0'.repeat(64)));
    const more = {
      staged,
      owner: { uid: 0, gid: 0 },
      limits: TAR_LIMITS,
      cancel: makeCancelFlag(),
    };
    try {
      // As if somebody had tried another parent before.
      if (layer.length % 1024 === 0) rebaseLayers({ ...target, lowers: [], ...more });
    } catch (error) {
      if (!isOpError(error, 'InvalidArgument')) throw error;
    }
    rebaseLayers({ ...target, ...more });
    return true;
  } catch (error) {
    if (!isOpError(error, 'InvalidArgument')) throw error;
    expect(readdirSync(target.upper)).toEqual([]);
    return false;
  } finally {
    rmSync(staged, { recursive: true });
  }
}

/** Names with what they are; times aside, as a directory's may be that of the moment. */
const listing = (path: string): Promise<string> =>
  run('sh', [
    '-c',
    `cd "$1" && find . -printf '%p %y %m %U:%G %l\\n' | sort && find . -type f | sort | xargs -r cat`,
    'sh',
    path,
  ]);

test('random layers give the same tree in one directory as over overlay, by a rebase too, and stay inside', async () => {
  await using disk = await loopFileSystem('ext4', 256);
  const outside = join(disk.path, 'outside');
  mkdirSync(outside);
  let number = 0;
  const property = fc.asyncProperty(layers, async (all) => {
    const folder = join(disk.path, `case ${number++}`);
    const plain = join(folder, 'plain');
    mkdirSync(plain, { recursive: true });
    const lowers: string[] = [];
    const rebasedLowers: string[] = [];
    for (const [index, layer] of all.entries()) {
      const bytes = archive(layer, index);
      const upper = join(folder, `layer-${index}`);
      const rebasedUpper = join(folder, `rebased-${index}`);
      mkdirSync(upper);
      mkdirSync(rebasedUpper);
      const isTaken = applied({ kind: 'directory', path: plain }, bytes);
      expect(applied({ kind: 'overlay', upper, lowers, xattrPrefix: 'trusted.' }, bytes)).toBe(
        isTaken,
      );
      const later = { upper: rebasedUpper, lowers: rebasedLowers };
      expect(rebased({ kind: 'overlay', ...later, xattrPrefix: 'trusted.' }, bytes)).toBe(isTaken);
      // What a plain tree got of a layer that was refused stays; a client would remove it.
      if (!isTaken) break;
      lowers.unshift(upper);
      rebasedLowers.unshift(rebasedUpper);
      if (index < all.length - 1) continue;
      const tree = await listing(plain);
      expect(await overlaid(lowers)).toEqual(tree);
      expect(await overlaid(rebasedLowers)).toEqual(tree);
    }
    expect(readdirSync(outside)).toEqual([]);
    rmSync(folder, { recursive: true });
  });
  await fc.assert(property, parameters(TREES));
  expect(descriptorsBelow(disk.path)).toEqual([]);
});

async function overlaid(lowers: readonly string[]): Promise<string> {
  const [only] = lowers;
  if (only !== undefined && lowers.length === 1) return listing(only);
  const fd = mountDetached(
    'overlay',
    lowers.map((path) => `lowerdir+=${path}`),
  );
  try {
    return await listing(`/proc/${process.pid}/fd/${fd}/.`);
  } finally {
    close(fd);
  }
}

const descriptorsBelow = (folder: string): readonly string[] =>
  readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      return path.startsWith(folder) ? [path] : [];
    } catch {
      return [];
    }
  });
