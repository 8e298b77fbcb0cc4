import type { Pax } from './pax.ts';
import type { TarLimits } from './limits.ts';
import { TarFault } from './tar-fault.ts';
import { BLOCK_BYTES, numberAt, type Header } from './tar-header.ts';

/** Bytes of a file that are stored; what is not in one is a hole. */
export interface Region {
  readonly offset: number;
  readonly length: number;
}

/** The map of a file with holes. */
export interface SparseMap {
  /** Length of the file with its holes, where the map's source says. */
  readonly fileBytes: number | undefined;
  /** Whether no more blocks of it follow. */
  readonly isComplete: boolean;
  /** Whether the blocks of the map count as stored bytes of the file. */
  readonly isStored: boolean;
  /** Takes the next block of an incomplete map. @throws TarFault */
  add(block: Buffer): void;
  /** Offset and length of each region, in turn. */
  readonly numbers: readonly number[];
}

/** Typeflag of a file with holes in GNU tar's own format. */
export const GNU_SPARSE = 0x53;

/**
 * Of a file with holes. GNU tar manual, "Storing Sparse Files"
 * @returns undefined for one without
 * @throws TarFault
 */
export function sparseMapOf(
  header: Header,
  block: Buffer,
  { sparse }: Pax,
  limits: TarLimits,
): SparseMap | undefined {
  if (header.typeFlag === GNU_SPARSE) {
    if (header.dialect === 'gnu') return new GnuMap(block, limits);
    throw new TarFault('it is a sparse file of GNU tar in an archive that is not');
  }
  if (sparse === undefined) return undefined;
  if (sparse.isMapStored) return new TextMap(sparse.fileBytes, limits);
  assertCount(sparse.map.length / 2, limits);
  return {
    fileBytes: sparse.fileBytes,
    isComplete: true,
    isStored: false,
    add: () => undefined,
    numbers: sparse.map,
  };
}

/**
 * The regions of a complete map that hold bytes.
 * @throws TarFault they overlap or go backwards, reach beyond the file, or hold not as much as is stored
 */
export function regionsOf(
  numbers: readonly number[],
  { fileBytes, storedBytes }: { readonly fileBytes: number; readonly storedBytes: number },
): readonly Region[] {
  const regions: Region[] = [];
  let end = 0;
  let bytes = 0;
  for (let at = 0; at < numbers.length; at += 2) {
    const [offset = 0, length = 0] = [numbers[at], numbers[at + 1]];
    if (offset < end) throw new TarFault('the regions of its sparse map overlap or go backwards');
    end = offset + length;
    if (end > fileBytes) throw new TarFault('a region of its sparse map is beyond its end');
    bytes += length;
    if (length > 0) regions.push({ offset, length });
  }
  if (bytes !== storedBytes) {
    throw new TarFault(`its sparse map speaks of ${bytes} bytes, ${storedBytes} are stored`);
  }
  return regions;
}

function assertCount(count: number, { sparseRegionsMax }: TarLimits): void {
  if (count > sparseRegionsMax) {
    throw new TarFault(`its sparse map has more than ${sparseRegionsMax} regions`);
  }
}

/** Four regions in the header, 21 in each block after it. GNU tar manual, "Old GNU Format" */
class GnuMap implements SparseMap {
  readonly isStored = false;
  readonly fileBytes: number;
  readonly numbers: number[] = [];
  readonly #limits: TarLimits;
  #isComplete: boolean;

  constructor(header: Buffer, limits: TarLimits) {
    this.#limits = limits;
    this.fileBytes = sizeAt(header, 483, 'size with holes');
    this.#isComplete = this.#read(header, 386, 4);
  }

  get isComplete(): boolean {
    return this.#isComplete;
  }

  add(block: Buffer): void {
    this.#isComplete = this.#read(block, 0, 21);
  }

  /** @returns whether no block follows */
  #read(block: Buffer, start: number, count: number): boolean {
    const end = start + count * GNU_REGION_BYTES;
    for (let at = start; at < end && block[at] !== 0; at += GNU_REGION_BYTES) {
      this.numbers.push(sizeAt(block, at, 'sparse map'), sizeAt(block, at + 12, 'sparse map'));
    }
    assertCount(this.numbers.length / 2, this.#limits);
    return block[end] === 0;
  }
}

const GNU_REGION_BYTES = 24;

function sizeAt(block: Buffer, at: number, what: string): number {
  const size = numberAt(block, at, 12, what);
  if (size < 0) throw new TarFault(`its ${what} has a negative number`);
  return size;
}

/** Lines of decimal numbers: how many regions, then offset and length of each. PAX format 1.0 */
class TextMap implements SparseMap {
  readonly isStored = true;
  readonly fileBytes: number | undefined;
  readonly numbers: number[] = [];
  readonly #limits: TarLimits;
  #numbersExpected: number | undefined;
  #number: number | undefined;

  constructor(fileBytes: number | undefined, limits: TarLimits) {
    this.fileBytes = fileBytes;
    this.#limits = limits;
  }

  get isComplete(): boolean {
    return this.numbers.length === this.#numbersExpected;
  }

  add(block: Buffer): void {
    for (let at = 0; at < BLOCK_BYTES && !this.isComplete; at++) this.#character(block[at] ?? 0);
  }

  #character(character: number): void {
    const digit = character - 0x30;
    if (digit >= 0 && digit <= 9) this.#number = (this.#number ?? 0) * 10 + digit;
    else if (character === NEWLINE && this.#number !== undefined) this.#line(this.#number);
    else throw new TarFault('its sparse map is not made of numbers');
  }

  #line(value: number): void {
    if (!Number.isSafeInteger(value)) throw new TarFault('its sparse map has a number beyond 2^53');
    this.#number = undefined;
    if (this.#numbersExpected === undefined) {
      assertCount(value, this.#limits);
      this.#numbersExpected = 2 * value;
    } else this.numbers.push(value);
  }
}

const NEWLINE = 0x0a;
