import type { BlobToPlace } from '../platform.ts';
import type { Placement } from './place-blobs.ts';

/** One request whose bytes lie in one piece of memory that can be handed over. */
export function packBlobs(blobs: readonly BlobToPlace[]): {
  bytes: Uint8Array<ArrayBuffer>;
  placements: readonly Placement[];
} {
  let length = 0;
  for (const { source } of blobs) if (source instanceof Uint8Array) length += source.length;
  const bytes = new Uint8Array(new ArrayBuffer(length));
  let end = 0;
  const placements = blobs.map(({ source, target, temporary }): Placement => {
    if (!(source instanceof Uint8Array)) return { source, target, temporary };
    const start = end;
    bytes.set(source, start);
    end += source.length;
    return { source: { start, end }, target, temporary };
  });
  return { bytes, placements };
}
