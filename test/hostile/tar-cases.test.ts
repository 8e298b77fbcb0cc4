// Every layer of the nasty and hostile images through the tar reader: legal ones mean what their maker
// knows they mean, and what is wrong with the archive itself is refused.
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { PassThrough, type Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { expect } from 'vitest';
import { isOpError, type OpError } from '../../src/base/errors.ts';
import { TAR_LIMITS } from '../../src/diff/apply/limits.ts';
import type { EntryType, TarEntry } from '../../src/diff/apply/tar-entry.ts';
import { TarReader, type TarSink } from '../../src/diff/apply/tar-reader.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { imagesTest } from './images-test.ts';
import { blobPath, makeImages, meanings, type ImageCase, type Meaning } from './images.ts';

/** The archive is fine, the tree that it asks for is not: the applier refuses these. */
const APPLIERS: readonly string[] = [
  'hardlink-self-missing',
  'hardlink-missing',
  'hardlink-dir',
  'hardlink-root',
  'hardlink-work',
  'name-256',
  'name-file-as-parent',
  'name-fifo-as-parent',
];

/** The blob is not the one that manifest or config speak of: whoever compares digests refuses these. */
const IMAGES = /^(?:lie-|blob-empty$)/;

/** Node's stream reads the first zstd frame only: these are for the tests of the decompressor. */
const ZSTD = /^(?:zstd-(?:frames|skippable.*|reserved-block|garbage-tail)|bomb-zstd-rle)$/;

/** Where a case allows either, the reader refuses these, as containerd does unless it says so. */
const REFUSED: readonly string[] = [
  // More than one system call takes.
  'bomb-dirs',
  'name-path-1M',
  'name-path-5000',
  'symlink-long-target',
  // Numbers that the kernel would not take; containerd cuts most of them and gives files to root.
  'dev-huge',
  'dev-major-4096',
  'dev-negative',
  'mode-negative',
  'mtime-95-bits',
  'mtime-huge',
  'mtime-min',
  'pax-uid-2-32',
  'pax-uid-negative',
  'uid-2-32',
  'uid-2-32-minus-1',
  'uid-minus-1',
  // Records that are malformed, or too many.
  'pax-key-64M',
  'pax-mtime-exponent',
  'pax-mtime-garbage',
  'pax-nul-link',
  'pax-nul-path',
  'pax-nul-xattr-key',
  'pax-records-1M',
  'pax-size-blank',
  'pax-size-conflict',
  'pax-xattr-no-name',
  // 2^62 bytes; containerd writes zeros until the disk is full.
  'sparse-8E',
  // The archive ends before what it announces; containerd takes that for its end.
  'pax-last',
  'tar-zero-block-inside',
  'typeflag-0xff',
  'typeflag-dumpdir',
  'typeflag-multi-volume',
  'typeflag-unknown',
];

/** Where both readings are right, this is containerd's. */
const NAMES: Readonly<Record<string, string>> = { 'pax-then-gnu': 'from-gnu' };

const TYPES: Readonly<Record<EntryType, string>> = {
  file: 'file',
  directory: 'dir',
  symlink: 'symlink',
  hardlink: 'hardlink',
  'character-device': 'char',
  'block-device': 'block',
  fifo: 'fifo',
};

/** Lists entries as the factory does. */
class Lister implements TarSink {
  readonly entries: Meaning[] = [];
  #entry: TarEntry | undefined;
  #hash: Hash | undefined;
  #position = 0;

  begin(entry: TarEntry): void {
    this.#entry = entry;
    this.#hash = createHash('sha256');
    this.#position = 0;
  }

  body(bytes: Uint8Array, position: number): void {
    this.#fill(position);
    this.#hash?.update(bytes);
    this.#position += bytes.length;
  }

  end(): void {
    const entry = this.#entry;
    if (entry === undefined) throw new Error('an end without a beginning');
    // Holes of hostile files go up to the sizes of whole disks.
    if (entry.size < 2 ** 30) this.#fill(entry.size);
    this.entries.push(meaningOf(entry, this.#hash?.digest('hex') ?? ''));
    this.#entry = undefined;
  }

  #fill(position: number): void {
    const hole = position - this.#position;
    if (hole > 0) this.#hash?.update(Buffer.alloc(hole));
    this.#position = position;
  }
}

const meaningOf = (entry: TarEntry, sha256: string): Meaning => ({
  path: entry.path.toString('latin1'),
  type: TYPES[entry.type],
  link: entry.linkPath.toString('latin1'),
  mode: entry.mode,
  uid: entry.uid,
  gid: entry.gid,
  mtime: String(BigInt(entry.mtime.seconds) * 10n ** 9n + BigInt(entry.mtime.nanoseconds)),
  device: [entry.deviceMajor, entry.deviceMinor],
  xattrs: Object.fromEntries([...entry.xattrs].map(([k, v]) => [k, v.toString('latin1')])),
  size: entry.size,
  sha256,
});

/** By the first bytes, as containerd does. */
async function decompressorOf(path: string): Promise<Transform> {
  await using file = await open(path);
  const magic = Buffer.alloc(4);
  await file.read(magic);
  const options = { chunkSize: 1 << 18 };
  if (magic.readUInt16BE() === 0x1f8b) return createGunzip(options);
  const isZstd = magic.readUInt32LE() === 0xfd2fb528;
  return isZstd ? createZstdDecompress(options) : new PassThrough();
}

type Outcome = readonly Meaning[] | OpError | 'not decompressed';

async function readLayer(path: string): Promise<Outcome> {
  const lister = new Lister();
  const reader = new TarReader(lister, TAR_LIMITS);
  const blob = createReadStream(path, { highWaterMark: 1 << 18 });
  try {
    await pipeline(blob, await decompressorOf(path), async (chunks: AsyncIterable<Buffer>) => {
      for await (const chunk of chunks) reader.push(chunk);
      reader.finish();
    });
    return lister.entries;
  } catch (error) {
    if (isOpError(error)) return error;
    if (error instanceof Error && 'code' in error && /^(Z_|ZSTD_|ERR_)/.test(String(error.code))) {
      return 'not decompressed';
    }
    throw error;
  }
}

imagesTest('layers of the nasty and hostile images are read as they should', testImages, 300_000);

async function testImages(): Promise<void> {
  await using folder = await temporaryFolder('images');
  const [cases, expected] = [await makeImages(folder.path), await meanings()];
  expect(cases.length).toBeGreaterThan(380);
  const refused: string[] = [];
  for (const each of cases) {
    if (IMAGES.test(each.name) || ZSTD.test(each.name)) continue;
    const outcomes: Outcome[] = [];
    for (const { digest } of each.layers) {
      outcomes.push(await readLayer(blobPath(folder.path, each.name, digest)));
    }
    checkVerdict(each, outcomes);
    const isRefused = outcomes.some((outcome) => isOpError(outcome));
    if (isRefused && each.verdict !== 'refused') refused.push(each.name);
    for (const [layer, meaning] of expected.get(each.name)?.entries() ?? []) {
      const named = meaning.map((entry) => ({ ...entry, path: NAMES[each.name] ?? entry.path }));
      expect(outcomes[layer], `${each.name}, layer ${layer}`).toEqual(named);
    }
  }
  expect(refused.toSorted()).toEqual(REFUSED.toSorted());
}

function checkVerdict({ name, verdict }: ImageCase, outcomes: readonly Outcome[]): void {
  const isRead = outcomes.every((outcome) => Array.isArray(outcome));
  if (verdict === 'tree' || APPLIERS.includes(name)) expect(isRead, name).toBe(true);
  else if (verdict === 'refused') expect(isRead, name).toBe(false);
}
