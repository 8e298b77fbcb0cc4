import { isOpError, type OpError } from '../../src/base/errors.ts';
import { TAR_LIMITS, type TarLimits } from '../../src/diff/apply/limits.ts';
import type { EntryType, TarEntry } from '../../src/diff/apply/tar-entry.ts';
import { TarReader, type TarSink } from '../../src/diff/apply/tar-reader.ts';

/** An entry in the words of tests: bytes of names and values are latin1. */
export interface ListedEntry {
  readonly type: EntryType;
  readonly path: string;
  readonly link: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds and nanoseconds. */
  readonly mtime: readonly [number, number];
  readonly atime: readonly [number, number] | undefined;
  readonly device: readonly [number, number];
  readonly size: number;
  readonly xattrs: Readonly<Record<string, string>>;
  readonly offset: number;
  /** Position and bytes of what is no hole, neighbours joined. */
  readonly body: readonly (readonly [number, string])[];
  /** Whether the reader told its end. */
  readonly isEnded: boolean;
}

export interface TarListing {
  readonly entries: readonly ListedEntry[];
  readonly error: OpError | undefined;
}

interface Options {
  readonly chunkBytes?: number;
  readonly limits?: Partial<TarLimits>;
}

/** Reads an archive in chunks that are gone after each push. @throws what is no OpError */
export function readTar(bytes: Buffer, { chunkBytes, limits }: Options = {}): TarListing {
  const lister = new Lister();
  const reader = new TarReader(lister, { ...TAR_LIMITS, ...limits });
  const step = chunkBytes ?? Math.max(bytes.length, 1);
  const chunk = Buffer.alloc(step);
  try {
    for (let at = 0; at < bytes.length; at += step) {
      reader.push(chunk.subarray(0, bytes.copy(chunk, 0, at, at + step)));
      chunk.fill(0xee);
    }
    reader.finish();
  } catch (error) {
    if (!isOpError(error)) throw error;
    return { entries: lister.list(), error };
  }
  return { entries: lister.list(), error: undefined };
}

interface Open {
  readonly entry: TarEntry;
  readonly body: [position: number, parts: Buffer[], end: number][];
  isEnded: boolean;
}

/** @throws Error calls that no applier would understand */
class Lister implements TarSink {
  readonly #entries: Open[] = [];

  begin(entry: TarEntry): void {
    if (this.#entries.at(-1)?.isEnded === false) throw new Error('an entry within another');
    this.#entries.push({ entry, body: [], isEnded: false });
  }

  body(bytes: Uint8Array, position: number): void {
    const { entry, body } = this.#current();
    const last = body.at(-1);
    const end = position + bytes.length;
    if (bytes.length === 0 || position < (last?.[2] ?? 0) || end > entry.size) {
      throw new Error(`${bytes.length} bytes at ${position} of ${entry.size}`);
    }
    const part = Buffer.from(bytes);
    if (last?.[2] === position) {
      last[1].push(part);
      last[2] = end;
    } else body.push([position, [part], end]);
  }

  end(): void {
    this.#current().isEnded = true;
  }

  list(): readonly ListedEntry[] {
    return this.#entries.map(listed);
  }

  #current(): Open {
    const current = this.#entries.at(-1);
    if (current === undefined || current.isEnded) throw new Error('no entry is open');
    return current;
  }
}

const listed = ({ entry, body, isEnded }: Open): ListedEntry => ({
  type: entry.type,
  path: entry.path.toString('latin1'),
  link: entry.linkPath.toString('latin1'),
  mode: entry.mode,
  uid: entry.uid,
  gid: entry.gid,
  mtime: [entry.mtime.seconds, entry.mtime.nanoseconds],
  atime: entry.atime && [entry.atime.seconds, entry.atime.nanoseconds],
  device: [entry.deviceMajor, entry.deviceMinor],
  size: entry.size,
  xattrs: Object.fromEntries([...entry.xattrs].map(([k, v]) => [k, v.toString('latin1')])),
  offset: entry.offset,
  body: body.map(([position, parts]) => [position, Buffer.concat(parts).toString('latin1')]),
  isEnded,
});
