import { OpError, quote } from '../../base/errors.ts';
import { digestOf, splitDigest, type Algorithm, type Digest } from '../../base/digest.ts';
import { cancellationOf, type CancelFlag } from '../../platform/jobs/cancellation.ts';
import type { Grown } from '../../platform/jobs/flush-behind.ts';
import { startHash, type RunningHash } from '../../platform/jobs/running-hash.ts';
import { fromSyncError, fromSystemError } from '../../platform/linux/errno.ts';
import { close, O, open, read, syncfs } from '../../platform/linux/files.ts';
import type { Usage } from '../../snapshotters/snapshotter.ts';
import type { PackedLayer, PackLayer } from '../compare/pack-layer.ts';
import { compressionOf, makeInflater, type Inflater } from './inflate.ts';
import type { TarLimits } from './limits.ts';
import { LayerWriter } from './layer-writer.ts';
import type { RebaseLayers } from './rebase-layers.ts';
import { RingReader, RingWriter, abandonRing, type Ring } from './ring.ts';
import { LayerStage } from './stage-layer.ts';
import { TarReader, type TarSink } from './tar-reader.ts';
import { openTree, type StageTarget, type Target } from './target.ts';
import type { Tree } from './tree.ts';

/** How much is read at once. */
const PIECE_BYTES = 256 * 1024;

/** Of the plain archive: what is on its way to the disk once for so much leaves little to the sync at the end. */
const FLUSH_BYTES = 32 << 20;

/** What layer threads do. The two halves of applying a layer each block a thread, a ring joins them. */
export interface LayerJobs {
  readLayer: { in: ReadLayer; out: void };
  writeLayer: { in: WriteLayer; out: WrittenLayer };
  rebaseLayers: { in: RebaseLayers; out: Usage | undefined };
  packLayer: { in: PackLayer; out: PackedLayer };
}

export interface ReadLayer {
  /** A file with the blob, or the ring that it comes in by. */
  readonly source: { readonly path: string } | { readonly ring: Ring };
  /** What the blob has to be; undefined: nobody asks. */
  readonly expected: Digest | undefined;
  readonly plain: Ring;
}

export interface WriteLayer {
  readonly plain: Ring;
  readonly target: Target;
  /** What to call it later, where it is staged. */
  readonly digest: Digest;
  readonly limits: TarLimits;
  readonly cancel: CancelFlag;
  /** Told after each FLUSH_BYTES, and at the end of more. */
  readonly grown: Grown;
}

/** Of the plain archive, with what follows its end. */
interface PlainArchive {
  /** sha256 */
  readonly hex: string;
  readonly size: number;
}

export interface WrittenLayer extends PlainArchive {
  /** Of the directory that it was written to, on the disk; undefined where that is not known. */
  readonly usage: Usage | undefined;
}

/**
 * Inflates a blob into the ring, which ends well only if the blob is what is expected.
 * @throws OpError NotFound; DataLoss: corrupt, cut off, or another blob; Canceled when the ring was abandoned
 */
export function readLayer({ source, expected, plain }: ReadLayer): void {
  const output = new RingWriter(plain);
  try {
    const check = expected === undefined ? undefined : new DigestCheck(expected);
    let inflater: Inflater | undefined;
    for (const piece of piecesOf(source)) {
      check?.update(piece);
      inflater ??= makeInflater(compressionOf(piece), output);
      inflater.push(piece);
    }
    inflater?.finish();
    check?.finish();
    output.end();
  } catch (error) {
    output.fail();
    if ('ring' in source) abandonRing(source.ring);
    throw error;
  }
}

class DigestCheck {
  readonly #expected: Digest;
  readonly #algorithm: Algorithm;
  readonly #hash: RunningHash;

  constructor(expected: Digest) {
    this.#expected = expected;
    this.#algorithm = splitDigest(expected).algorithm;
    this.#hash = startHash(this.#algorithm);
  }

  update(piece: Uint8Array): void {
    this.#hash.update(piece);
  }

  /** @throws OpError DataLoss */
  finish(): void {
    const found = digestOf(this.#algorithm, this.#hash.digest());
    if (found !== this.#expected) throw new OpError('DataLoss', `the blob is ${found}`);
  }
}

function* piecesOf(source: ReadLayer['source']): Iterable<Uint8Array> {
  if ('ring' in source) return yield* new RingReader(source.ring).chunks();
  const what = `reading ${quote(source.path)}`;
  let fd = -1;
  try {
    fd = open(source.path, O.RDONLY);
    const piece = Buffer.allocUnsafe(PIECE_BYTES);
    for (let got = read(fd, piece); got > 0; got = read(fd, piece)) yield piece.subarray(0, got);
  } catch (error) {
    throw fromSystemError(error, what);
  } finally {
    if (fd >= 0) close(fd);
  }
}

/**
 * Writes the archive that comes out of the ring into the target. On disk when it returns; when it throws,
 * a target that was empty is empty again. A crash leaves a part of the layer in a snapshot that is not
 * committed: nobody was told that it is there, and whoever asked makes the snapshot anew.
 * @throws OpError InvalidArgument: a layer that is none, or wants out; Canceled; SyncFailure
 */
export function writeLayer(job: WriteLayer): WrittenLayer {
  const { plain, target, cancel } = job;
  try {
    if (target.kind === 'stage') return { ...stageLayer(job, target), usage: undefined };
    using tree = openTree(target, cancellationOf(cancel, 'applying a layer'));
    try {
      const written = writeTree(job, tree);
      flush(tree);
      return { ...written, usage: tree.usage() };
    } catch (error) {
      tree.clear();
      throw error;
    }
  } catch (error) {
    abandonRing(plain);
    throw error;
  }
}

function writeTree(job: WriteLayer, tree: Tree): PlainArchive {
  using writer = new LayerWriter(tree, job.limits);
  return writeEntries(job, writer);
}

/** The same for a tree that is not known yet. Of what failed nothing stays. */
function stageLayer(job: WriteLayer, target: StageTarget): PlainArchive {
  using stage = new LayerStage(target);
  try {
    const written = writeEntries(job, stage);
    stage.keep(job.digest);
    return written;
  } catch (error) {
    stage.clear();
    throw error;
  }
}

interface LayerSink extends TarSink {
  /** After the last entry. */
  finish(): void;
  /** Where it is, for messages. */
  readonly place: string;
}

function writeEntries({ plain, limits, grown }: WriteLayer, writer: LayerSink): PlainArchive {
  const hash = startHash('sha256');
  let size = 0;
  let flushAt = FLUSH_BYTES;
  const reader = new TarReader(writer, limits);
  try {
    for (const chunk of new RingReader(plain).chunks()) {
      hash.update(chunk);
      size += chunk.length;
      reader.push(chunk);
      if (size < flushAt) continue;
      grown.postMessage(undefined);
      flushAt += FLUSH_BYTES;
    }
  } catch (error) {
    if (!(error instanceof OpError) || error.code !== 'Aborted') throw error;
    throw new OpError(
      'Aborted',
      `${error.message} at byte ${size} of the archive, ${writer.place}`,
    );
  }
  reader.finish();
  // What is left goes on its way while directories get their times.
  if (size > FLUSH_BYTES) grown.postMessage(undefined);
  writer.finish();
  return { hex: hash.digest(), size };
}

function flush(tree: Tree): void {
  try {
    syncfs(tree.writable(tree.root));
  } catch (error) {
    throw fromSyncError(error, 'flushing a layer');
  }
}
