import type { Digest } from '../base/digest.ts';

/** Manifests, configs and indexes are below this; layers are not. */
export const SMALL_BLOB_BYTES = 64 << 10;
/** About 2000 manifests of usual size: what the images in use on one host read again and again. */
const CACHE_BYTES = 8 << 20;

/** The bytes of small blobs that were written or read last. Blobs never change, so neither does it. */
export class BlobCache {
  /** In order of use, oldest first. */
  readonly #blobs = new Map<Digest, Uint8Array>();
  #bytes = 0;

  get(digest: Digest): Uint8Array | undefined {
    const bytes = this.#blobs.get(digest);
    if (bytes === undefined) return undefined;
    this.#blobs.delete(digest);
    this.#blobs.set(digest, bytes);
    return bytes;
  }

  put(digest: Digest, bytes: Uint8Array): void {
    if (bytes.length > SMALL_BLOB_BYTES || this.#blobs.has(digest)) return;
    this.#blobs.set(digest, bytes);
    this.#bytes += bytes.length;
    for (const oldest of this.#blobs.keys()) {
      if (this.#bytes <= CACHE_BYTES) break;
      this.delete(oldest);
    }
  }

  delete(digest: Digest): void {
    this.#bytes -= this.#blobs.get(digest)?.length ?? 0;
    this.#blobs.delete(digest);
  }
}
