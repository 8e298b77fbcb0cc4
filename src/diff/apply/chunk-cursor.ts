const NOTHING = Buffer.alloc(0);

/** Takes what comes in chunks in pieces of other lengths, with a copy only where a piece spans chunks. */
export class ChunkCursor {
  #chunk: Buffer = NOTHING;
  /** In the chunk. */
  #at = 0;
  /** Bytes of all chunks before this one. */
  #before = 0;
  /** What is there of a piece that began in an earlier chunk. */
  #partial: Buffer | undefined;
  #partialBytes = 0;

  /** The next chunk, when all of the last one is taken. */
  feed(chunk: Uint8Array): void {
    this.#before += this.#chunk.length;
    this.#chunk = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    this.#at = 0;
  }

  /** Whether all of the chunk is taken. */
  get isEmpty(): boolean {
    return this.#at === this.#chunk.length;
  }

  /** Bytes taken so far, those of an unfinished piece among them. */
  get offset(): number {
    return this.#before + this.#at;
  }

  /** Bytes of a piece whose end has not come yet. */
  get partialBytes(): number {
    return this.#partialBytes;
  }

  /** What the chunk has of so many bytes. */
  pass(length: number): Buffer {
    const bytes = this.#chunk.subarray(this.#at, this.#at + length);
    this.#at += bytes.length;
    return bytes;
  }

  /** So many bytes in one piece, valid as long as the chunk; undefined as long as they are not all there. */
  gather(length: number): Buffer | undefined {
    const part = this.pass(length - this.#partialBytes);
    if (part.length === length) return part;
    this.#partial ??= Buffer.allocUnsafe(length);
    part.copy(this.#partial, this.#partialBytes);
    this.#partialBytes += part.length;
    if (this.#partialBytes < length) return undefined;
    const whole = this.#partial;
    this.#partial = undefined;
    this.#partialBytes = 0;
    return whole;
  }
}
