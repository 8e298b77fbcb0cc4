import { cancellationOf, type CancelFlag } from '../../platform/jobs/cancellation.ts';
import { startHash, type RunningHash } from '../../platform/jobs/running-hash.ts';
import { close } from '../../platform/linux/files.ts';
import type { Compression } from '../apply/inflate.ts';
import { RingWriter, type Ring } from '../apply/ring.ts';
import type { Comparison } from './comparison.ts';
import { compress, PIECE_BYTES } from './compress.ts';
import { failureAt } from './failure.ts';
import { FileBodies } from './file-body.ts';
import { LayerEntries, type EntryWithBody } from './layer-entries.ts';
import { openRoot } from './open-root.ts';
import { Side } from './side.ts';
import { TarPacker } from './tar-packer.ts';
import { TreeWalk } from './tree-walk.ts';

export interface PackLayer {
  readonly comparison: Comparison;
  readonly compression: Compression;
  /** Nanoseconds since the epoch: no time in the layer is later. */
  readonly sourceDateEpoch: bigint | undefined;
  /** Where the blob goes. */
  readonly blob: Ring;
  readonly cancel: CancelFlag;
}

/** Both digests are sha256. */
export interface PackedLayer {
  /** Of the archive without compression. */
  readonly diffHex: string;
  readonly blobHex: string;
  readonly blobBytes: number;
}

/**
 * Walks two trees and puts their difference, as the blob of a layer, into the ring.
 * @throws OpError naming the path; Canceled
 */
export async function packLayer(job: PackLayer): Promise<PackedLayer> {
  const output = new RingWriter(job.blob);
  try {
    const packed = await pack(job, output);
    output.end();
    return packed;
  } catch (error) {
    output.fail();
    throw error;
  }
}

async function pack(job: PackLayer, output: RingWriter): Promise<PackedLayer> {
  const [diff, blob] = [startHash('sha256'), startHash('sha256')];
  let blobBytes = 0;
  const packer = new TarPacker();
  const compressed = compress(piecesOf(packer.chunks(), diff), job.compression, (bytes) => {
    blob.update(bytes);
    blobBytes += bytes.length;
    publish(output, bytes);
  });
  const halves = await Promise.allSettled([compressed, addAll(job, packer)]);
  // Where adding failed, it made the other half fail with the same error.
  for (const half of halves) if (half.status === 'rejected') throw half.reason;
  return { diffHex: diff.digest(), blobHex: blob.digest(), blobBytes };
}

/**
 * Hashes what passes, and joins it, as each piece costs the compressor a turn of its own. The memory of a
 * piece is used again for the next but one: of memory made anew for each, a hundred megabytes would
 * gather before it is given back.
 */
async function* piecesOf(
  chunks: AsyncIterable<Uint8Array>,
  hash: RunningHash,
): AsyncIterable<Uint8Array> {
  let [piece, other] = [Buffer.allocUnsafe(PIECE_BYTES), Buffer.allocUnsafe(PIECE_BYTES)];
  let used = 0;
  for await (const chunk of chunks) {
    for (let rest = chunk; rest.length > 0;) {
      const part = rest.subarray(0, PIECE_BYTES - used);
      piece.set(part, used);
      used += part.length;
      rest = rest.subarray(part.length);
      if (used < PIECE_BYTES) continue;
      hash.update(piece);
      yield piece;
      [piece, other] = [other, piece];
      used = 0;
    }
  }
  const last = piece.subarray(0, used);
  hash.update(last);
  yield last;
}

function publish(output: RingWriter, bytes: Uint8Array): void {
  for (let rest = bytes; rest.length > 0;) {
    const slot = output.slot();
    const part = rest.subarray(0, slot.length);
    slot.set(part);
    output.publish(part.length);
    rest = rest.subarray(part.length);
  }
}

async function addAll(job: PackLayer, packer: TarPacker): Promise<void> {
  try {
    await addDifferences(job, packer);
    packer.end();
  } catch (error) {
    packer.fail(error instanceof Error ? error : new Error(String(error)));
    throw error;
  }
}

async function addDifferences(job: PackLayer, packer: TarPacker): Promise<void> {
  const { comparison, sourceDateEpoch, cancel } = job;
  const cancellation = cancellationOf(cancel, 'comparing');
  const { marks } = comparison;
  using upper = new Side(openRoot(comparison.upper), marks);
  using lower = comparison.lower === undefined ? undefined : new Side(openRoot(comparison.lower));
  const walk = new TreeWalk({ upper, lower, isUpperDirectory: marks !== undefined }, cancellation);
  const entries = new LayerEntries(upper, sourceDateEpoch);
  const bodies = new FileBodies(cancellation);
  for (const difference of walk.differences()) {
    for (const each of entries.of(difference)) await add(each, { upper, bodies, packer });
  }
}

async function add(
  { entry, file }: EntryWithBody,
  { upper, bodies, packer }: { upper: Side; bodies: FileBodies; packer: TarPacker },
): Promise<void> {
  if (file === undefined) return packer.add(entry);
  let fd = -1;
  try {
    const opened = upper.openFile(file);
    fd = opened.fd;
    await packer.add(entry, bodies.of(opened, entry.path));
  } catch (error) {
    throw failureAt(entry.path, error);
  } finally {
    if (fd >= 0) close(fd);
  }
}
