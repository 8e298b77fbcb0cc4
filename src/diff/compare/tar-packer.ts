import { pack, type Pack } from 'tar-stream';
import {
  BLOCK_BYTES,
  extendedHeader,
  FIELD,
  paddingOf,
  recordsOf,
  standIn,
  ustarHeader,
  type PaxRecord,
} from './extended-header.ts';
import type { LayerEntry } from './layer-entry.ts';

/** How far the archive may be ahead of its reader. */
export const AHEAD_BYTES = 256 * 1024;

/** Bytes of a file, as many as were said. */
export interface Body {
  readonly size: number;
  /** One of AHEAD_BYTES has been read when the next is asked for: its memory can be used again. */
  readonly chunks: Iterable<Buffer>;
  /** Of a file with holes: how to find them. */
  readonly records: readonly PaxRecord[];
}

const NO_BODY: Body = { size: 0, chunks: [], records: [] };

/**
 * Writes an archive by tar-stream's packer. That one makes its records by way of UTF-8, which names and
 * values need not be, and takes no times beyond 31 bits, so the extended headers are ours: they go
 * in front of its own headers, whose fields then hold stand-ins.
 */
export class TarPacker {
  readonly #pack: Pack = pack();
  #aheadBytes = 0;
  #wake = (): void => {};

  constructor() {
    this.#pack.on('error', toldElsewhere);
  }

  /** Resolves when the reader is near. @throws what the reader failed with */
  async add(entry: LayerEntry, body = NO_BODY): Promise<void> {
    const records = [...recordsOf(entry, body.size), ...body.records];
    if (records.length > 0) await this.#push(extendedHeader(records));
    const isHuge = entry.major > FIELD.device || entry.minor > FIELD.device;
    if (isHuge) await this.#push(deviceHeader(entry));
    else await this.#pass(entry, body);
  }

  end(): void {
    this.#pack.finalize();
  }

  /** Ends the reader with the error. */
  fail(error: Error): void {
    this.#pack.destroy(error);
  }

  /** The archive. Ending the iteration early lets whoever adds go on, and nothing more come of it. */
  async *chunks(): AsyncIterable<Uint8Array> {
    try {
      for await (const chunk of this.#pack) {
        if (!(chunk instanceof Uint8Array)) throw new Error('the packer made no bytes');
        yield chunk;
        this.#aheadBytes -= chunk.length;
        if (this.#aheadBytes < AHEAD_BYTES) this.#wake();
      }
    } finally {
      this.#aheadBytes = -Infinity;
      this.#wake();
    }
  }

  async #push(bytes: Buffer): Promise<void> {
    this.#pack.push(bytes);
    await this.#count(bytes.length);
  }

  async #pass(entry: LayerEntry, { size, chunks }: Body): Promise<void> {
    const { promise: packed, resolve, reject } = Promise.withResolvers<void>();
    const sink = this.#pack.entry(headerOf(entry, size), (error) => {
      if (error) reject(error);
      else resolve();
    });
    sink.on('error', toldElsewhere);
    packed.catch(toldElsewhere);
    await this.#count(BLOCK_BYTES);
    if (entry.type !== 'file') return packed;
    for (const chunk of chunks) {
      sink.write(chunk);
      await this.#count(chunk.length);
    }
    sink.end(null);
    await packed;
    await this.#count(paddingOf(size));
  }

  /** Waits while the reader is far behind. */
  async #count(bytes: number): Promise<void> {
    this.#aheadBytes += bytes;
    while (this.#aheadBytes >= AHEAD_BYTES) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** The reader, and whoever adds, learn of errors; where nobody listens for one it would end the thread. */
const toldElsewhere = (): void => undefined;

/** The permissions with a bit of the file's type: the packer takes a mode of 0 for one that is missing. */
const MODE_BASE = 0o100000;

const wholeSeconds = ({ mtime: { seconds } }: LayerEntry): number =>
  Math.min(Math.max(seconds, 0), FIELD.time);

const headerOf = (entry: LayerEntry, size: number): Parameters<Pack['entry']>[0] => ({
  name: standIn(entry.path),
  linkname: standIn(entry.link),
  type: entry.type === 'hardlink' ? 'link' : entry.type,
  mode: MODE_BASE | entry.mode,
  uid: entry.uid,
  gid: entry.gid,
  size,
  mtime: new Date(wholeSeconds(entry) * 1000),
  devmajor: entry.major,
  devminor: entry.minor,
});

/** Of a device whose number is beyond the packer's fields. */
const deviceHeader = (entry: LayerEntry): Buffer =>
  ustarHeader({
    name: standIn(entry.path),
    mode: entry.mode,
    uid: Math.min(entry.uid, FIELD.id),
    gid: Math.min(entry.gid, FIELD.id),
    mtime: wholeSeconds(entry),
    size: 0,
    type: entry.type === 'block-device' ? '4' : '3',
    major: entry.major,
    minor: entry.minor,
  });
