import type { RequestContext } from '../base/context.ts';
import type { Digest } from '../base/digest.ts';
import { isOpError } from '../base/errors.ts';
import type { Labels } from '../base/labels.ts';
import type { ContentStore, Writer } from '../content/content.ts';

/** What goes to the store at once: the memory that a blob under way has. */
const BLOCK_BYTES = 256 * 1024;

/**
 * Makes a blob of bytes that come in pieces of any size, whose digest nobody knows. Disposed without a commit
 * it leaves nothing; a crash leaves an ingest, which its lease or 24 hours keep.
 */
export class BlobWriter implements AsyncDisposable {
  readonly #ctx: RequestContext;
  readonly #content: ContentStore;
  readonly #ref: string;
  readonly #writer: Writer;
  #block = Buffer.alloc(0);
  #used = 0;
  #offset = 0;
  #isCommitted = false;

  private constructor(ctx: RequestContext, content: ContentStore, ref: string, writer: Writer) {
    this.#ctx = ctx;
    this.#content = content;
    this.#ref = ref;
    this.#writer = writer;
  }

  static async open(ctx: RequestContext, content: ContentStore, ref: string): Promise<BlobWriter> {
    return new BlobWriter(ctx, content, ref, await content.writer(ctx, ref, {}));
  }

  /** Copies the bytes. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let rest = bytes; rest.length > 0;) {
      // The writer owns what it was given.
      if (this.#block.length === 0) this.#block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
      const part = rest.subarray(0, this.#block.length - this.#used);
      this.#block.set(part, this.#used);
      this.#used += part.length;
      if (this.#used === this.#block.length) await this.#flush();
      rest = rest.subarray(part.length);
    }
  }

  /** On disk when it resolves. A blob that is there already is taken for it, whatever its labels. */
  async commit(labels: Labels): Promise<{ readonly digest: Digest; readonly size: number }> {
    await this.#flush();
    const { digest, offset: size } = this.#writer.status();
    try {
      await this.#writer.commit(labels);
    } catch (error) {
      if (!isOpError(error, 'AlreadyExists')) throw error;
    }
    this.#isCommitted = true;
    return { digest, size };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer[Symbol.asyncDispose]();
    if (this.#isCommitted) return;
    try {
      await this.#content.abort(this.#ctx, this.#ref);
    } catch (error) {
      if (!isOpError(error, 'NotFound')) throw error;
    }
  }

  async #flush(): Promise<void> {
    if (this.#used === 0) return;
    // Small blobs stay in memory as they are: no larger than they need be.
    const block =
      this.#used === this.#block.length
        ? this.#block
        : Uint8Array.from(this.#block.subarray(0, this.#used));
    const length = this.#used;
    this.#block = Buffer.alloc(0);
    this.#used = 0;
    await this.#writer.write(this.#offset, block);
    this.#offset += length;
  }
}
