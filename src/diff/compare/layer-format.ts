import { OpError, quote } from '../../base/errors.ts';
import type { Compression } from '../apply/inflate.ts';
import { PLAIN_LAYER } from '../diff.ts';

/** OCI image specification, media-types.md; Docker's image manifest, version 2, schema 2. */
const COMPRESSIONS: ReadonlyMap<string, Compression> = new Map([
  [PLAIN_LAYER, 'none'],
  [`${PLAIN_LAYER}+gzip`, 'gzip'],
  [`${PLAIN_LAYER}+zstd`, 'zstd'],
  ['application/vnd.docker.image.rootfs.diff.tar', 'none'],
  ['application/vnd.docker.image.rootfs.diff.tar.gzip', 'gzip'],
  ['application/vnd.docker.image.rootfs.diff.tar.zstd', 'zstd'],
]);

const DEFAULT = `${PLAIN_LAYER}+gzip`;

/**
 * @param wanted empty for the usual one
 * @throws OpError Unimplemented: not one that is written here
 */
export function formatOf(wanted: string): {
  readonly mediaType: string;
  readonly compression: Compression;
} {
  const mediaType = wanted === '' ? DEFAULT : wanted;
  const compression = COMPRESSIONS.get(mediaType);
  if (compression === undefined) {
    throw new OpError(
      'Unimplemented',
      `media type ${quote(mediaType)}: use one of ${[...COMPRESSIONS.keys()].join(', ')}`,
    );
  }
  return { mediaType, compression };
}
