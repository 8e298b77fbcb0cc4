import { randomUUID } from 'node:crypto';
import { posix } from 'node:path';
import { Readable, pipeline } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import type { RequestContext } from '../base/context.ts';
import type { Digest } from '../base/digest.ts';
import { messageOf, OpError, quote } from '../base/errors.ts';
import { NO_LABELS } from '../base/labels.ts';
import type { ContentStore } from '../content/content.ts';
import { compressionOf } from '../diff/apply/inflate.ts';
import { TAR_LIMITS } from '../diff/apply/limits.ts';
import type { TarEntry } from '../diff/apply/tar-entry.ts';
import { TarReader, type TarSink } from '../diff/apply/tar-reader.ts';
import { BlobWriter } from './blob-writer.ts';
import { JSON_BYTES_MAX } from './oci.ts';
import type { ImportArchive } from './transfer.ts';

/** Of each name is kept to the end: with the longest, 200 MB. */
const ENTRIES_MAX = 50_000;

/** Blobs that are on their way to the disk while the archive goes on: they share its syncs. */
const COMMITS_MAX = 16;

const LAYOUT = 'oci-layout';
const DOCKER_MANIFEST = 'manifest.json';

export interface ArchiveBlob {
  readonly digest: Digest;
  readonly size: number;
}

/** What was in an archive: every file is a blob by now, but for those that say what it is. */
export interface ArchiveContents {
  /** Of OCI's layout. */
  readonly layout: unknown;
  /** Docker's list of images. */
  readonly manifests: unknown;
  /** By name, without `./` and the like. */
  readonly blobs: ReadonlyMap<string, ArchiveBlob>;
  /** Symbolic links by name, and where they lead. */
  readonly links: ReadonlyMap<string, string>;
}

/**
 * Takes an archive as it comes; names are never paths here. Reads no further than its end.
 * @throws OpError InvalidArgument: no tar archive, or beyond a limit; DataLoss: cut off or corrupt
 */
export async function readArchive(
  ctx: RequestContext,
  content: ContentStore,
  { bytes, mayBeCompressed }: ImportArchive,
): Promise<ArchiveContents> {
  await using files = new ArchiveFiles(ctx, content);
  const reader = new TarReader(files, { ...TAR_LIMITS, entriesMax: ENTRIES_MAX });
  for await (const chunk of mayBeCompressed ? plain(bytes) : bytes) {
    ctx.signal.throwIfAborted();
    reader.push(chunk);
    await files.settle();
    if (reader.isAtEnd) break;
  }
  reader.finish();
  return await files.contents();
}

/** A file of the archive that is being read. */
interface OpenFile {
  readonly name: string;
  readonly size: number;
  readonly ref: string;
  /** What is read whole, where it is no blob. */
  readonly pieces: Buffer[] | undefined;
  written: number;
  writer: BlobWriter | undefined;
}

/** The reader tells in one turn what takes several to do: that waits in a queue until the chunk was read. */
class ArchiveFiles implements TarSink, AsyncDisposable {
  readonly #ctx: RequestContext;
  readonly #content: ContentStore;
  readonly #id = randomUUID();
  readonly #blobs = new Map<string, Promise<ArchiveBlob>>();
  readonly #links = new Map<string, string>();
  readonly #documents = new Map<string, unknown>();
  readonly #commits = new Set<Promise<unknown>>();
  #count = 0;
  #todo: (() => Promise<void>)[] = [];
  #file: OpenFile | undefined;
  /** The one whose writer is open. */
  #writing: OpenFile | undefined;

  constructor(ctx: RequestContext, content: ContentStore) {
    this.#ctx = ctx;
    this.#content = content;
  }

  begin({ type, path, linkPath, size }: TarEntry): void {
    const name = path.toString();
    if (type === 'symlink') {
      this.#links.set(name, posix.join(posix.dirname(name), linkPath.toString()));
    }
    if (type !== 'file') return;
    const clean = posix.normalize(name).replace(/(?<=.)\/$/, '');
    const isDocument = clean === LAYOUT || clean === DOCKER_MANIFEST;
    if (isDocument && size > JSON_BYTES_MAX) {
      throw new OpError('InvalidArgument', `archive: ${clean} has ${size} bytes, too many`);
    }
    const file: OpenFile = {
      name: clean,
      size,
      ref: `import-${this.#id}-${this.#count++}`,
      pieces: isDocument ? [] : undefined,
      written: 0,
      writer: undefined,
    };
    this.#file = file;
    if (isDocument) return;
    this.#todo.push(async () => {
      this.#writing = file;
      file.writer = await BlobWriter.open(this.#ctx, this.#content, file.ref);
    });
  }

  body(bytes: Uint8Array, position: number): void {
    const file = this.#file;
    if (file === undefined) return;
    if (position !== file.written) throw sparse(file);
    file.written += bytes.length;
    if (file.pieces !== undefined) file.pieces.push(Buffer.from(bytes));
    else this.#todo.push(async () => file.writer?.write(bytes));
  }

  end(): void {
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined) return;
    if (file.written !== file.size) throw sparse(file);
    if (file.pieces !== undefined) {
      this.#documents.set(file.name, parse(file.name, Buffer.concat(file.pieces)));
      return;
    }
    this.#todo.push(async () => {
      this.#writing = undefined;
      const committed = commit(file);
      committed.catch(() => undefined);
      this.#blobs.set(file.name, committed);
      this.#commits.add(committed);
      void committed.finally(() => this.#commits.delete(committed)).catch(() => undefined);
      while (this.#commits.size >= COMMITS_MAX) await Promise.race(this.#commits);
    });
  }

  /** Does what the reader has told; the bytes of its chunk are free then. */
  async settle(): Promise<void> {
    const todo = this.#todo;
    this.#todo = [];
    for (const each of todo) await each();
  }

  async contents(): Promise<ArchiveContents> {
    const blobs = new Map<string, ArchiveBlob>();
    for (const [name, committed] of this.#blobs) blobs.set(name, await committed);
    // Also those whose name came once more.
    await Promise.all(this.#commits);
    return {
      layout: this.#documents.get(LAYOUT),
      manifests: this.#documents.get(DOCKER_MANIFEST),
      blobs,
      links: this.#links,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing?.writer?.[Symbol.asyncDispose]();
    await Promise.allSettled(this.#commits);
  }
}

async function commit({ writer }: OpenFile): Promise<ArchiveBlob> {
  if (writer === undefined) throw new Error('a file without a writer');
  await using blob = writer;
  return await blob.commit(NO_LABELS);
}

const sparse = ({ name }: OpenFile): OpError =>
  new OpError('InvalidArgument', `archive: ${quote(name)} is a file with holes`);

function parse(name: string, bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString());
  } catch (error) {
    throw new OpError('InvalidArgument', `archive: ${name}: ${messageOf(error)}`);
  }
}

/** Inflates on libuv's threads what is compressed: its first bytes tell. */
async function* plain(bytes: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  const iterator = bytes[Symbol.asyncIterator]();
  let start: Uint8Array = new Uint8Array(0);
  try {
    while (start.length < 4) {
      const { done, value } = await iterator.next();
      if (done === true) break;
      start = start.length === 0 ? value : Buffer.concat([start, value]);
    }
    const all = startingWith(start, iterator);
    const compression = compressionOf(start);
    if (compression === 'none') yield* all;
    else yield* inflated(all, compression);
  } finally {
    // Not awaited: what was asked for ahead may never come, after the end of the archive.
    void iterator.return?.();
  }
}

async function* startingWith(
  start: Uint8Array,
  rest: AsyncIterator<Uint8Array>,
): AsyncIterable<Uint8Array> {
  yield start;
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
}

async function* inflated(
  bytes: AsyncIterable<Uint8Array>,
  compression: 'gzip' | 'zstd',
): AsyncIterable<Uint8Array> {
  const chunkSize = 256 * 1024;
  const inflate =
    compression === 'gzip' ? createGunzip({ chunkSize }) : createZstdDecompress({ chunkSize });
  // Whoever iterates is told of errors.
  pipeline(Readable.from(bytes, { highWaterMark: 1 }), inflate, () => undefined);
  try {
    for await (const chunk of inflate) yield chunk;
  } catch (error) {
    if (!(error instanceof Error && 'errno' in error)) throw error;
    throw new OpError('DataLoss', `archive: its ${compression} stream is broken: ${error.message}`);
  }
}
