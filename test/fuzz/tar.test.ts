// Archives of random entries are read by our reader as by another one, and archives that were damaged at
// random are read or refused: within the limits, the same in chunks of any size, without any other error.
import { buffer } from 'node:stream/consumers';
import fc from 'fast-check';
import { extract, type Header } from 'tar-stream';
import { expect, test } from 'vitest';
import type { TarLimits } from '../../src/diff/apply/limits.ts';
import { numberFromEnv, testSeed } from '../support/random.ts';
import { readTar, type ListedEntry, type TarListing } from '../support/read-tar.ts';
import { archiveOf, madeEntries, mutated, mutations, withChecksums } from './archives.ts';

const CASES = numberFromEnv('FUZZ_CASES', 10_000);

/** Small, so that archives of this size meet them. */
const LIMITS: TarLimits = {
  directoriesMax: 1000,
  entriesMax: 6,
  pathBytesMax: 300,
  extensionBytesMax: 2048,
  sparseRegionsMax: 30,
  fileBytesMax: 100_000,
  plainBytesMax: 30_000,
};

const parameters = (): fc.Parameters<unknown> => {
  const seed = testSeed();
  process.stdout.write(`BALLAST_SEED=${seed}\n`);
  return { seed, numRuns: CASES };
};

/** What both readers say of an entry. Names are text. */
interface Common {
  readonly type: string;
  readonly path: string;
  readonly link: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: number;
  readonly xattrs: Readonly<Record<string, string>>;
  readonly body: string;
}

const text = (latin1: string): string => Buffer.from(latin1, 'latin1').toString();

const ours = (entry: ListedEntry): Common => ({
  type: entry.type,
  path: text(entry.path),
  link: text(entry.link),
  mode: entry.mode,
  uid: entry.uid,
  gid: entry.gid,
  mtime: entry.mtime[0],
  xattrs: Object.fromEntries(Object.entries(entry.xattrs).map(([k, v]) => [k, text(v)])),
  body: entry.body.map(([, bytes]) => bytes).join(''),
});

/**
 * Where tar-stream's words are others:
 * - contiguous files have a type of their own, hard links another name;
 * - records of owners are left to the caller, as are those of attributes.
 * Not made here are archives that it reads otherwise than containerd, or not at all: links and devices with
 * a size (it takes bytes for theirs), global records (it applies them), directories known by their slash,
 * times before 1970, v7 and sparse files.
 */
function theirs(header: Header, body: Buffer): Common {
  const records = new Map(Object.entries(header.pax ?? {}).map(([k, v]) => [k, String(v)]));
  const xattrs = [...records].filter(([key]) => key.startsWith(XATTR));
  return {
    type: TYPES[header.type] ?? header.type,
    path: header.name,
    link: header.linkname ?? '',
    mode: header.mode,
    uid: Number(records.get('uid') ?? header.uid),
    gid: Number(records.get('gid') ?? header.gid),
    mtime: header.mtime.getTime() / 1000,
    xattrs: Object.fromEntries(xattrs.map(([key, value]) => [key.slice(XATTR.length), value])),
    body: body.toString('latin1'),
  };
}

const XATTR = 'SCHILY.xattr.';
const TYPES: Readonly<Record<string, string>> = { 'contiguous-file': 'file', link: 'hardlink' };

async function readByTarStream(archive: Buffer): Promise<readonly Common[]> {
  const extractor = extract();
  const entries: Common[] = [];
  extractor.end(archive);
  for await (const entry of extractor) entries.push(theirs(entry.header, await buffer(entry)));
  return entries;
}

test('made archives are read as by tar-stream', async () => {
  const property = fc.asyncProperty(
    fc.array(madeEntries, { maxLength: 6, size: 'max' }),
    async (entries) => {
      const archive = archiveOf(entries);
      const { entries: read, error } = readTar(archive);
      expect(error).toBeUndefined();
      expect(read.map(ours)).toEqual(await readByTarStream(archive));
      expect(read.map(ours)).toMatchObject(
        entries.map(({ name, link, mode, uid, gid, mtime, body }) => ({
          path: name,
          link,
          mode,
          uid,
          gid,
          mtime,
          body: body.toString('latin1'),
        })),
      );
    },
  );
  await fc.assert(property, parameters());
});

/** Reads an archive that may be anything, in two ways. @throws whatever is no refusal */
function readAnything(archive: Buffer, chunkBytes: number): void {
  const whole = readTar(archive, { limits: LIMITS });
  expect(outline(readTar(archive, { limits: LIMITS, chunkBytes }))).toEqual(outline(whole));
  expect(whole.entries.length).toBeLessThanOrEqual(LIMITS.entriesMax);
  for (const [index, entry] of whole.entries.entries()) {
    expect(entry.isEnded || (index === whole.entries.length - 1 && whole.error)).toBeTruthy();
    expect(entry.size).toBeLessThanOrEqual(LIMITS.fileBytesMax);
    expect(Math.max(entry.path.length, entry.link.length)).toBeLessThanOrEqual(LIMITS.pathBytesMax);
    const kept = JSON.stringify(entry.xattrs).length;
    expect(kept).toBeLessThanOrEqual(10 * LIMITS.extensionBytesMax);
  }
}

const outline = ({ entries, error }: TarListing): unknown => [entries, error?.code, error?.message];

test('damaged archives are read or refused', () => {
  const property = fc.property(
    fc.array(madeEntries, { minLength: 1, maxLength: 4, size: 'max' }),
    fc.array(mutations, { minLength: 1, maxLength: 4 }),
    fc.boolean(),
    fc.integer({ min: 1, max: 1500 }),
    (entries, changes, isRepaired, chunkBytes) => {
      const damaged = changes.reduce(mutated, archiveOf(entries));
      readAnything(isRepaired ? withChecksums(damaged) : damaged, chunkBytes);
    },
  );
  fc.assert(property, parameters());
});
