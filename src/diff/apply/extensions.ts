import type { TarLimits } from './limits.ts';
import { parseRecords } from './pax-records.ts';
import { NO_PAX, parsePax, type Pax } from './pax.ts';
import { TarFault } from './tar-fault.ts';
import { cstring, type Header } from './tar-header.ts';

/** What headers in front of an entry say of it. */
export interface Extensions {
  readonly pax: Pax;
  readonly longName: Buffer | undefined;
  readonly longLink: Buffer | undefined;
}

const NONE: Extensions = { pax: NO_PAX, longName: undefined, longLink: undefined };

/** Typeflags. */
const FLAG = {
  pax: 0x78,
  /** Solaris's name for the same. */
  solarisPax: 0x58,
  globalPax: 0x67,
  gnuLongName: 0x4c,
  gnuLongLink: 0x4b,
} as const;

const FLAGS: ReadonlySet<number> = new Set(Object.values(FLAG));

/** Whether a header speaks of the next entry, or of all of them. */
export const isExtension = ({ typeFlag }: Header): boolean => FLAGS.has(typeFlag);

/**
 * The headers in front of an entry. Of several of a kind the last counts alone, as in Go. Records for all
 * entries (PAX typeflag g) are checked and not applied, as in containerd.
 */
export class ExtensionHeaders {
  readonly #limits: TarLimits;
  #current = NONE;
  #bytes = 0;

  constructor(limits: TarLimits) {
    this.#limits = limits;
  }

  get current(): Extensions {
    return this.#current;
  }

  /** Whether an entry has to follow. */
  get isPending(): boolean {
    return this.#current !== NONE;
  }

  /** Counts what is kept for an entry, before it is. @throws TarFault too much */
  count(bytes: number): void {
    this.#bytes += bytes;
    const { extensionBytesMax } = this.#limits;
    if (this.#bytes > extensionBytesMax) {
      throw new TarFault(`extension headers and map of an entry exceed ${extensionBytesMax} bytes`);
    }
  }

  /** Takes a header's body, and keeps nothing of it. @throws TarFault */
  add({ typeFlag }: Header, body: Buffer): void {
    switch (typeFlag) {
      case FLAG.gnuLongName:
        this.#current = { ...this.#current, longName: nameIn(body) };
        return;
      case FLAG.gnuLongLink:
        this.#current = { ...this.#current, longLink: nameIn(body) };
        return;
      case FLAG.globalPax:
        // Readers differ in whether the headers before it still speak of the entry after it.
        if (this.isPending) throw new TarFault('it parts an entry from its headers');
        parseRecords(body);
        return;
      default:
        this.#current = { ...this.#current, pax: parsePax(body) };
    }
  }

  /** Another entry comes. */
  clear(): void {
    this.#current = NONE;
    this.#bytes = 0;
  }
}

/** An empty one says nothing. */
function nameIn(body: Buffer): Buffer | undefined {
  const name = cstring(body);
  return name.length === 0 ? undefined : name;
}
