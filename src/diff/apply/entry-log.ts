import { deserialize, serialize } from 'node:v8';
import { messageOf, OpError } from '../../base/errors.ts';
import { read, write } from '../../platform/linux/files.ts';
import { ChunkCursor } from './chunk-cursor.ts';
import type { TarEntry } from './tar-entry.ts';

/** How much is written and read at once. */
const PIECE_BYTES = 256 * 1024;
const LENGTH_BYTES = 4;

/** Writes entries into a file: of each the length of its record, then the record. */
export class EntryLog {
  readonly #fd: number;
  #records: Buffer[] = [];
  #bytes = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  add(entry: TarEntry): void {
    const record = serialize(entry);
    const length = Buffer.allocUnsafe(LENGTH_BYTES);
    length.writeUInt32LE(record.length);
    this.#records.push(length, record);
    this.#bytes += LENGTH_BYTES + record.length;
    if (this.#bytes >= PIECE_BYTES) this.flush();
  }

  flush(): void {
    write(this.#fd, Buffer.concat(this.#records));
    this.#records = [];
    this.#bytes = 0;
  }
}

/**
 * The entries of such a file, from where its descriptor stands.
 * @throws OpError DataLoss for what was never written so
 */
export function* entriesIn(fd: number): Iterable<TarEntry> {
  const input = new ChunkCursor();
  let length: number | undefined;
  for (;;) {
    // Entries keep parts of it.
    const piece = Buffer.allocUnsafeSlow(PIECE_BYTES);
    const got = read(fd, piece);
    if (got === 0) break;
    input.feed(piece.subarray(0, got));
    for (;;) {
      length ??= input.gather(LENGTH_BYTES)?.readUInt32LE();
      const record = length === undefined ? undefined : input.gather(length);
      if (record === undefined) break;
      length = undefined;
      yield entryOf(record);
    }
  }
  if (length !== undefined || input.partialBytes > 0) throw damaged('it is cut off');
}

/** Our own record, in a folder that is ours alone: not parsed again. */
function entryOf(record: Buffer): TarEntry {
  try {
    return deserialize(record);
  } catch (error) {
    throw damaged(messageOf(error));
  }
}

const damaged = (why: string): OpError =>
  new OpError('DataLoss', `the entries kept of a layer cannot be read: ${why}; unpack it again`);
