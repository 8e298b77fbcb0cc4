import { OpError } from '../../base/errors.ts';
import type { Cancellation } from '../../platform/jobs/cancellation.ts';
import { read, seek, seekData, seekHole } from '../../platform/linux/files.ts';
import type { Name } from '../apply/names.ts';
import { paddingOf, type PaxRecord } from './extended-header.ts';
import { AHEAD_BYTES, type Body } from './tar-packer.ts';

/** Holes of less are written as zeros: other readers understand those without any extension. */
const HOLES_BYTES = 1 << 20;
/** The map has to fit into what readers keep for one entry; beyond, zeros are written. */
const REGIONS_MAX = 10_000;

interface Region {
  readonly at: number;
  readonly length: number;
}

export interface OpenedFile {
  readonly fd: number;
  readonly size: number;
  /** Allocated units of 512 bytes. */
  readonly blocks: number;
}

/** Reads files for entries. */
export class FileBodies {
  readonly #cancellation: Cancellation;
  readonly #piece = Buffer.allocUnsafe(AHEAD_BYTES);

  constructor(cancellation: Cancellation) {
    this.#cancellation = cancellation;
  }

  /**
   * The bytes of a file as an entry has them: all of them, or those between large holes, behind a map (GNU
   * tar manual, "Storing Sparse Files", PAX format 1.0). A file that grows meanwhile is cut at the size it
   * had. Each chunk is read when it is asked for.
   * @throws OpError Aborted, with a chunk: the file became shorter; Canceled
   */
  of(file: OpenedFile, path: Name): Body {
    const regions = regionsOf(file);
    if (regions === undefined) {
      const whole = [{ at: 0, length: file.size }];
      return { size: file.size, chunks: this.#chunks(file.fd, whole), records: [] };
    }
    const map = mapOf(regions);
    const stored = regions.reduce((sum, { length }) => sum + length, 0);
    return {
      size: map.length + stored,
      chunks: prepended(map, this.#chunks(file.fd, regions)),
      records: sparseRecords(path, file.size),
    };
  }

  *#chunks(fd: number, regions: readonly Region[]): Iterable<Buffer> {
    for (const { at, length } of regions) {
      // Looking for holes has moved the position.
      if (length > 0) seek(fd, at);
      for (let rest = length; rest > 0;) {
        this.#cancellation.check();
        const chunk = this.#read(fd, rest);
        if (chunk.length === 0) {
          throw new OpError('Aborted', 'became shorter while it was read; try again');
        }
        yield chunk;
        rest -= chunk.length;
      }
    }
  }

  /** What is no whole piece gets memory of its own. */
  #read(fd: number, rest: number): Buffer {
    const piece = rest < AHEAD_BYTES ? Buffer.allocUnsafe(rest) : this.#piece;
    const chunk = piece.subarray(0, read(fd, piece));
    return piece === this.#piece && chunk.length < AHEAD_BYTES ? Buffer.from(chunk) : chunk;
  }
}

/** Undefined where no large hole is. */
function regionsOf({ fd, size, blocks }: OpenedFile): readonly Region[] | undefined {
  if (size - blocks * 512 < HOLES_BYTES) return undefined;
  const regions: Region[] = [];
  let end = 0;
  while (end < size) {
    const at = seekData(fd, end);
    if (at === undefined || at >= size) break;
    end = Math.min(seekHole(fd, at), size);
    regions.push({ at, length: end - at });
    if (regions.length > REGIONS_MAX) return undefined;
  }
  if (end < size) regions.push({ at: size, length: 0 });
  return regions;
}

function mapOf(regions: readonly Region[]): Buffer {
  const numbers = [regions.length, ...regions.flatMap(({ at, length }) => [at, length])];
  const text = Buffer.from(numbers.map((number) => `${number}\n`).join(''));
  return Buffer.concat([text, Buffer.alloc(paddingOf(text.length))]);
}

const sparseRecords = (path: Name, size: number): readonly PaxRecord[] => [
  ['GNU.sparse.major', '1'],
  ['GNU.sparse.minor', '0'],
  ['GNU.sparse.name', path],
  ['GNU.sparse.realsize', String(size)],
];

function* prepended(first: Buffer, rest: Iterable<Buffer>): Iterable<Buffer> {
  yield first;
  yield* rest;
}
