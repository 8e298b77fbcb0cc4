import type { Clock } from '../base/clock.ts';
import { digestOf, splitDigest, type Digest } from '../base/digest.ts';
import { OpError, quote } from '../base/errors.ts';
import type { Labels } from '../base/labels.ts';
import type { Along } from '../metadata/metadata.ts';
import type { Announced, Writer, WriterStatus } from './content.ts';
import type { Ingest } from './ingest.ts';

/** What a writer needs of the store that made it. */
export interface WriterHost {
  readonly clock: Clock;
  has(digest: Digest): boolean;
  /** Makes the ingest's bytes a blob. @throws AlreadyExists */
  place(ingest: Ingest, digest: Digest, labels: Labels, along: Along | undefined): Promise<void>;
  /** The ingest and its bytes go; the ref stays locked. */
  drop(ingest: Ingest): Promise<void>;
  /** The writer leaves its ingest behind; the ref is free when this resolves. */
  leave(ingest: Ingest): Promise<void>;
  /** Frees the ref of an ingest that is gone. */
  free(ingest: Ingest): void;
}

/** One stream's rights on one ref (CONTRACT section 6). */
export class IngestWriter implements Writer {
  readonly #host: WriterHost;
  readonly #ingest: Ingest;
  /** What this stream announced; an earlier one of the same ingest does not count. */
  #total = 0;
  #expected: Digest | undefined;
  /** The ingest became a blob, or was dropped: nothing is left behind. */
  #gone = false;
  #disposed: Promise<void> | undefined;

  constructor(ingest: Ingest, host: WriterHost) {
    this.#ingest = ingest;
    this.#host = host;
  }

  status(): WriterStatus {
    return {
      ...this.#ingest.status,
      total: this.#total,
      digest: digestOf('sha256', this.#ingest.digest('sha256')),
    };
  }

  async announce({ total, expected, anew }: Announced): Promise<void> {
    if (total !== undefined && total > 0) this.#total = total;
    if (expected === undefined) return;
    this.#expected = expected;
    if (anew !== true && this.#host.has(expected)) {
      await this.#drop();
      throw new OpError('AlreadyExists', `content ${expected}: already exists`);
    }
    await this.#ingest.alsoHash(splitDigest(expected).algorithm);
  }

  async write(offset: number, data: Uint8Array): Promise<void> {
    const ingest = this.#ingest;
    if (offset > 0 && offset !== ingest.offset) {
      throw new OpError(
        'OutOfRange',
        `ingest ${quote(ingest.ref)} holds ${ingest.offset} bytes, it cannot be written at offset ${offset}`,
      );
    }
    const now = this.#host.clock.now();
    if (offset === 0 && ingest.offset > 0) await ingest.truncate(now);
    await ingest.append(data, now);
  }

  async commit(labels: Labels, along?: Along): Promise<Digest> {
    const ingest = this.#ingest;
    if (this.#total > 0 && this.#total !== ingest.offset) {
      throw new OpError(
        'FailedPrecondition',
        `ingest ${quote(ingest.ref)} holds ${ingest.offset} bytes, not the ${this.#total} announced`,
      );
    }
    const algorithm =
      this.#expected === undefined ? 'sha256' : splitDigest(this.#expected).algorithm;
    const digest = digestOf(algorithm, ingest.digest(algorithm));
    if (this.#expected !== undefined && digest !== this.#expected) {
      throw new OpError(
        'FailedPrecondition',
        `ingest ${quote(ingest.ref)} has the digest ${digest}, not the expected ${this.#expected}`,
      );
    }
    try {
      await this.#host.place(ingest, digest, labels, along);
    } catch (error) {
      if (error instanceof OpError && error.code === 'AlreadyExists') await this.#drop();
      throw error;
    }
    this.#gone = true;
    return digest;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#disposed ??= this.#leave();
    return this.#disposed;
  }

  async #drop(): Promise<void> {
    this.#gone = true;
    await this.#host.drop(this.#ingest);
  }

  async #leave(): Promise<void> {
    if (this.#gone) this.#host.free(this.#ingest);
    else await this.#host.leave(this.#ingest);
  }
}
