import assert from 'node:assert/strict';
import { OpError, quote } from '../../base/errors.ts';
import { ChunkCursor } from './chunk-cursor.ts';
import { ExtensionHeaders, isExtension } from './extensions.ts';
import type { TarLimits } from './limits.ts';
import { regionsOf, sparseMapOf, type Region, type SparseMap } from './sparse-map.ts';
import { entryOf, storedBytesOf, type TarEntry } from './tar-entry.ts';
import { TarFault } from './tar-fault.ts';
import { BLOCK_BYTES, cstring, parseHeader, type Header } from './tar-header.ts';

/** What is told of an archive, in its order. What these throw, `push` throws. */
export interface TarSink {
  begin(entry: TarEntry): void;
  /**
   * Bytes of the open file, never none, at `position` of it. Positions rise; what is left out, at the end
   * too, are holes. The bytes are valid until return.
   */
  body(bytes: Uint8Array, position: number): void;
  end(): void;
}

/** What the next bytes are. */
type Section = 'header' | 'extension' | 'sparse map' | 'body' | 'padding' | 'rest';

const NO_NAME = Buffer.alloc(0);

/**
 * Reads an archive as it comes, in chunks of any size, and understands it as containerd does (Go's
 * archive/tar); it also knows GNU tar's own sparse files, contiguous files and Solaris's extended headers,
 * which containerd refuses. Bodies are not copied. The archive ends with two blocks of zeros, or with the
 * last chunk where an entry could begin; what follows the two blocks is passed over. Where names lead
 * (up, to the root, through links), what they mean (whiteouts), and whether a link has a target is not
 * looked at: that is the sink's part.
 */
export class TarReader {
  readonly #sink: TarSink;
  readonly #limits: TarLimits;
  readonly #input = new ChunkCursor();
  readonly #extensions: ExtensionHeaders;
  #section: Section = 'header';
  #hasZeroBlock = false;
  #entries = 0;
  /** A call threw or never returned: what follows can't be understood. */
  #isBroken = false;
  /** Of the last header, for messages. */
  #headerAt = 0;
  #name: Buffer = NO_NAME;

  /** While its body is read. */
  #extension: Header | undefined;
  /** While the map of an entry is read. */
  #sparse: { readonly entry: TarEntry; readonly map: SparseMap } | undefined;
  /** Of the open entry, without a map that is part of them. */
  #storedBytes = 0;
  #regions: readonly Region[] = [];
  #regionIndex = 0;
  /** Of the region, read so far. */
  #regionBytes = 0;
  #paddingLeft = 0;

  constructor(sink: TarSink, limits: TarLimits) {
    this.#sink = sink;
    this.#limits = limits;
    this.#extensions = new ExtensionHeaders(limits);
  }

  /**
   * Takes the next bytes of the archive; they may be overwritten after its return. Not to be called after
   * an error.
   * @throws OpError InvalidArgument: not a tar archive, one that contradicts itself, or beyond a limit
   */
  push(chunk: Uint8Array): void {
    this.#guarded(() => {
      const { plainBytesMax } = this.#limits;
      if (this.#input.offset + chunk.length > plainBytesMax) {
        throw new TarFault(`the archive has more than ${plainBytesMax} bytes`);
      }
      this.#input.feed(chunk);
      while (!this.#input.isEmpty) this.#step();
    });
  }

  /** The two blocks of zeros have come: what follows means nothing. */
  get isAtEnd(): boolean {
    return this.#section === 'rest';
  }

  /**
   * No more bytes come.
   * @throws OpError DataLoss: the archive is cut off
   */
  finish(): void {
    this.#guarded(() => {
      const { offset, partialBytes } = this.#input;
      if (this.#section === 'header') {
        if (partialBytes > 0) this.#place(offset - partialBytes, NO_NAME);
        else if (this.#extensions.isPending) {
          throw new TarFault('the archive ends before the entry that it announces', 'DataLoss');
        }
      }
      if (partialBytes > 0 || !FINAL_SECTIONS.includes(this.#section)) {
        throw new TarFault(`the archive ends within its ${this.#section}`, 'DataLoss');
      }
    });
  }

  #guarded(work: () => void): void {
    assert(!this.#isBroken, 'a tar reader was used after it failed');
    this.#isBroken = true;
    try {
      work();
    } catch (error) {
      throw error instanceof TarFault ? this.#located(error) : error;
    }
    this.#isBroken = false;
  }

  #located({ code, message }: TarFault): OpError {
    const name = cstring(this.#name).toString();
    const entry = name === '' ? '' : ` of ${quote(name)}`;
    return new OpError(code, `tar header at byte ${this.#headerAt}${entry}: ${message}`);
  }

  #place(headerAt: number, name: Buffer): void {
    this.#headerAt = headerAt;
    this.#name = name;
  }

  #step(): void {
    switch (this.#section) {
      case 'header':
        return this.#readHeader();
      case 'extension':
        return this.#readExtension();
      case 'sparse map':
        return this.#readMap();
      case 'body':
        return this.#readBody();
      case 'padding':
        this.#paddingLeft -= this.#input.pass(this.#paddingLeft).length;
        if (this.#paddingLeft === 0) this.#section = 'header';
        return;
      case 'rest':
        this.#input.pass(Infinity);
    }
  }

  #readHeader(): void {
    const block = this.#input.gather(BLOCK_BYTES);
    if (block === undefined) return;
    this.#place(this.#input.offset - BLOCK_BYTES, block.subarray(0, 100));
    const header = parseHeader(block);
    this.#name = header?.name ?? NO_NAME;
    if (header === undefined) this.#endBlock();
    else if (this.#hasZeroBlock) throw new TarFault('a single block of zeros is in front of it');
    else if (isExtension(header)) this.#beginExtension(header);
    else this.#beginEntry(header, block);
  }

  /** Two of them end the archive. */
  #endBlock(): void {
    if (this.#extensions.isPending) {
      throw new TarFault('the archive ends where an extension header announced an entry');
    }
    if (this.#hasZeroBlock) this.#section = 'rest';
    this.#hasZeroBlock = true;
  }

  #beginExtension(header: Header): void {
    if (header.size < 0) throw new TarFault(`its size is ${header.size}`);
    this.#extensions.count(header.size);
    if (header.size === 0) {
      this.#extensions.add(header, NO_NAME);
      return;
    }
    this.#extension = header;
    this.#section = 'extension';
  }

  #readExtension(): void {
    const header = this.#extension;
    assert(header);
    const bytes = this.#input.gather(header.size + paddingAfter(header.size));
    if (bytes === undefined) return;
    this.#extensions.add(header, bytes.subarray(0, header.size));
    this.#section = 'header';
  }

  #beginEntry(header: Header, block: Buffer): void {
    if (++this.#entries > this.#limits.entriesMax) {
      throw new TarFault(`the archive has more than ${this.#limits.entriesMax} entries`);
    }
    const extensions = this.#extensions.current;
    const map = sparseMapOf(header, block, extensions.pax, this.#limits);
    const place = { offset: this.#headerAt, fileBytes: map?.fileBytes };
    const entry = entryOf(header, extensions, place, this.#limits);
    this.#name = entry.path;
    this.#storedBytes = storedBytesOf(entry.type, header, extensions.pax);
    if (map === undefined) {
      this.#open(entry, entry.size === 0 ? [] : [{ offset: 0, length: entry.size }]);
      return;
    }
    if (entry.type !== 'file') throw new TarFault(`it is a ${entry.type} with a sparse map`);
    this.#sparse = { entry, map };
    this.#section = 'sparse map';
    if (map.isComplete) this.#openSparse(entry, map);
  }

  #readMap(): void {
    const block = this.#input.gather(BLOCK_BYTES);
    if (block === undefined) return;
    assert(this.#sparse);
    const { entry, map } = this.#sparse;
    this.#extensions.count(BLOCK_BYTES);
    if (map.isStored) this.#storedBytes -= BLOCK_BYTES;
    if (this.#storedBytes < 0) throw new TarFault('its sparse map is longer than what is stored');
    map.add(block);
    if (map.isComplete) this.#openSparse(entry, map);
  }

  #openSparse(entry: TarEntry, { numbers }: SparseMap): void {
    this.#sparse = undefined;
    const bytes = { fileBytes: entry.size, storedBytes: this.#storedBytes };
    this.#open(entry, regionsOf(numbers, bytes));
  }

  #open(entry: TarEntry, regions: readonly Region[]): void {
    this.#extensions.clear();
    this.#regions = regions;
    this.#regionIndex = 0;
    this.#section = 'body';
    this.#sink.begin(entry);
    if (regions.length === 0) this.#close();
  }

  #readBody(): void {
    const region = this.#regions[this.#regionIndex];
    assert(region);
    const position = region.offset + this.#regionBytes;
    const bytes = this.#input.pass(region.length - this.#regionBytes);
    this.#regionBytes += bytes.length;
    this.#sink.body(bytes, position);
    if (this.#regionBytes < region.length) return;
    this.#regionBytes = 0;
    this.#regionIndex++;
    if (this.#regionIndex === this.#regions.length) this.#close();
  }

  #close(): void {
    this.#sink.end();
    this.#paddingLeft = paddingAfter(this.#storedBytes);
    this.#section = this.#paddingLeft === 0 ? 'header' : 'padding';
  }
}

/** Where an archive may end. */
const FINAL_SECTIONS: readonly Section[] = ['header', 'padding', 'rest'];

/** Up to the next block. */
const paddingAfter = (bytes: number): number => (BLOCK_BYTES - (bytes % BLOCK_BYTES)) % BLOCK_BYTES;
