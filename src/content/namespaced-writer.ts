import type { Digest } from '../base/digest.ts';
import { alreadyExists, isOpError, OpError, quote } from '../base/errors.ts';
import { checkLabels, NO_LABELS, type Labels } from '../base/labels.ts';
import type { WriteTx } from '../metadata/metadata.ts';
import type { Announced, Info, Writer, WriterStatus } from './content.ts';

/** What a writer needs of the store that made it. */
interface WriterOptions {
  readonly ref: string;
  readonly announced: Announced;
  /** The writer below; undefined while `shared` stands for what it would write. */
  readonly first: Writer | undefined;
  readonly shared: Info | undefined;
  readonly now: bigint;
  readonly open: () => Promise<Writer>;
  /** What the writer builds on: blobs that are not collected while it is there. */
  readonly uses: DisposableStack;
  readonly use: (digest: Digest) => Disposable;
  /** The ref is free again. */
  readonly left: () => void;
  readonly isVisible: (digest: Digest) => boolean;
  /** What an earlier writer of the ref left behind goes. */
  readonly dropHeld: () => Promise<void>;
  readonly copy: (digest: Digest) => AsyncIterable<Uint8Array>;
  readonly show: (tx: WriteTx, digest: Digest, labels: Labels) => boolean;
  readonly hide: (tx: WriteTx, digest: Digest) => void;
  /** Runs a batch of its own. */
  readonly alone: (change: (tx: WriteTx) => boolean) => Promise<boolean>;
  readonly committed: (digest: Digest, size: number) => void;
}

/**
 * A writer below, with the namespace's own view of what is there; or, in its place, a blob that another
 * namespace wrote, which counts as written already. Only who writes to it nevertheless gets a copy.
 */
export class NamespacedWriter implements Writer {
  readonly #options: WriterOptions;
  #writer: Writer | undefined;
  #shared: Info | undefined;
  #total: number;
  #expected: Digest | undefined;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#writer = options.first;
    this.#shared = options.shared;
    this.#total = options.announced.total ?? 0;
    this.#expected = options.announced.expected;
  }

  status(): WriterStatus {
    const { ref, now } = this.#options;
    if (this.#writer !== undefined) return { ...this.#writer.status(), ref };
    const { size, digest } = this.#blob();
    return { ref, offset: size, total: size, startedAt: now, updatedAt: now, digest };
  }

  async announce(announced: Announced): Promise<void> {
    const { total = 0, expected } = announced;
    if (total > 0) this.#total = total;
    if (expected !== undefined && expected !== this.#expected) {
      this.#expected = expected;
      this.#options.uses.use(this.#options.use(expected));
    }
    if (expected === undefined || !this.#options.isVisible(expected)) {
      await this.#writer?.announce({ ...announced, anew: true });
      return;
    }
    // Below it is there too: the ingest goes, and the answer is that of the store.
    await this.#writer?.announce(announced);
    throw alreadyExists(`content ${expected}`);
  }

  async write(offset: number, data: Uint8Array): Promise<void> {
    if (this.#writer === undefined) {
      const { size, digest } = this.#blob();
      if (offset === size && data.length === 0) return;
      this.#writer = await this.#options.open();
      if (offset > 0) {
        let at = 0;
        for await (const piece of this.#options.copy(digest)) {
          const { length } = piece;
          // A copy: the writer owns what it is given, the store's piece is the store's.
          await this.#writer.write(at, Uint8Array.from(piece));
          at += length;
        }
      }
      this.#shared = undefined;
    }
    await this.#writer.write(offset, data);
  }

  async commit(labels: Labels): Promise<Digest> {
    checkLabels(labels);
    const { show, hide, alone, committed } = this.#options;
    const { offset, digest: sha256 } = this.status();
    let digest = this.#expected ?? sha256;
    this.#options.uses.use(this.#options.use(digest));
    let isNew = true;
    if (this.#writer === undefined) {
      digest = this.#checkShared();
      isNew = await alone((tx) => show(tx, digest, labels));
      await this.#options.dropHeld();
    } else {
      try {
        digest = await this.#writer.commit(NO_LABELS, (tx) => {
          show(tx, digest, labels);
          return (later) => hide(later, digest);
        });
      } catch (error) {
        // Below it was there already, and its bytes are these: the namespace has shown that it has them.
        if (!isOpError(error, 'AlreadyExists')) throw error;
        isNew = await alone((tx) => show(tx, digest, labels));
      }
    }
    if (!isNew) throw alreadyExists(`content ${digest}`);
    committed(digest, offset);
    return digest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#writer?.[Symbol.asyncDispose]();
    } finally {
      this.#options.uses.dispose();
      this.#options.left();
    }
  }

  /** @throws OpError FailedPrecondition size or digest differ from the announced */
  #checkShared(): Digest {
    const { size, digest } = this.#blob();
    const { ref } = this.#options;
    if (this.#total > 0 && this.#total !== size) {
      throw new OpError(
        'FailedPrecondition',
        `ingest ${quote(ref)} holds ${size} bytes, not the ${this.#total} announced`,
      );
    }
    if (this.#expected !== undefined && this.#expected !== digest) {
      throw new OpError(
        'FailedPrecondition',
        `ingest ${quote(ref)} has the digest ${digest}, not the expected ${this.#expected}`,
      );
    }
    return digest;
  }

  #blob(): Info {
    if (this.#shared === undefined)
      throw new Error('a writer without an ingest and without a blob');
    return this.#shared;
  }
}
