import { createHash } from 'node:crypto';
import { digestOf, splitDigest, type Algorithm, type Digest } from '../../src/base/digest.ts';
import type { Labels } from '../../src/base/labels.ts';
import type { Announced } from '../../src/content/content.ts';
import { DONE, type Verdict } from './property.ts';

export interface Blob {
  readonly bytes: Buffer;
  labels: Labels;
  createdAt: bigint;
  updatedAt: bigint;
}

export interface Ingest {
  bytes: Buffer;
  /** As announced when it began. */
  readonly total: number;
  readonly startedAt: bigint;
  /** What the open stream announced; undefined without a stream. */
  stream: { expected: Digest | undefined; total: number } | undefined;
}

export function digestBytes(bytes: Buffer, algorithm: 'sha256' | 'sha512' = 'sha256'): Digest {
  return digestOf(algorithm, createHash(algorithm).update(bytes).digest('hex'));
}

/** What a content store answers, and nothing of how. */
export class ContentModel {
  readonly blobs = new Map<Digest, Blob>();
  readonly ingests = new Map<string, Ingest>();

  /** Opening a stream: its first message. */
  open(ref: string, announced: Announced): Verdict {
    if (ref === '') return ['InvalidArgument'];
    const ingest = this.ingests.get(ref);
    if (ingest?.stream) return ['Unavailable'];
    if (announced.expected && this.blobs.has(announced.expected)) return ['AlreadyExists'];
    // Another size is another content: it begins anew.
    if (ingest && announced.total && ingest.total && announced.total !== ingest.total) {
      this.ingests.delete(ref);
    }
    return DONE;
  }

  announce(ref: string, announced: Announced): Verdict {
    const ingest = this.ingests.get(ref);
    if (announced.expected && this.blobs.has(announced.expected)) {
      this.ingests.delete(ref);
      return ['AlreadyExists'];
    }
    if (ingest?.stream && announced.expected) ingest.stream.expected = announced.expected;
    if (ingest?.stream && announced.total) ingest.stream.total = announced.total;
    return DONE;
  }

  write(ingest: Ingest, offset: number, data: Buffer): Verdict {
    if (offset !== 0 && offset !== ingest.bytes.length) {
      ingest.stream = undefined;
      return ['OutOfRange'];
    }
    ingest.bytes = offset === 0 ? data : Buffer.concat([ingest.bytes, data]);
    return DONE;
  }

  /** The digest that a commit gives, whether or not it is what was expected. */
  digest(ingest: Ingest): Digest {
    const algorithm: Algorithm = ingest.stream?.expected
      ? splitDigest(ingest.stream.expected).algorithm
      : 'sha256';
    return digestBytes(ingest.bytes, algorithm === 'sha512' ? 'sha512' : 'sha256');
  }

  commit(ref: string, ingest: Ingest): Verdict {
    const digest = this.digest(ingest);
    const { expected, total = 0 } = ingest.stream ?? {};
    const wrong =
      (total > 0 && total !== ingest.bytes.length) ||
      (expected !== undefined && expected !== digest);
    ingest.stream = undefined;
    if (wrong) return ['FailedPrecondition'];
    this.ingests.delete(ref);
    return this.blobs.has(digest) ? ['AlreadyExists'] : DONE;
  }

  abort(ref: string): Verdict {
    if (this.ingests.get(ref)?.stream) return ['Unavailable'];
    this.ingests.delete(ref);
    return DONE;
  }
}
