import { OpError, quote } from '../../base/errors.ts';

export type Compression = 'none' | 'gzip' | 'zstd';

/** OCI image specification, media-types.md; Docker's image manifest, version 2, schema 2. */
const COMPRESSIONS: ReadonlyMap<string, Compression> = new Map([
  ['application/vnd.oci.image.layer.v1.tar', 'none'],
  ['application/vnd.oci.image.layer.v1.tar+gzip', 'gzip'],
  ['application/vnd.oci.image.layer.v1.tar+zstd', 'zstd'],
  ['application/vnd.docker.image.rootfs.diff.tar', 'none'],
  ['application/vnd.docker.image.rootfs.diff.tar.gzip', 'gzip'],
  ['application/vnd.docker.image.rootfs.diff.tar.zstd', 'zstd'],
]);

const DEFAULT = 'application/vnd.oci.image.layer.v1.tar+gzip';

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
