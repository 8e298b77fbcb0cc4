/**
 * Layers of plain tar, gzip or zstd. OCI image specification, layer.md and media-types.md; Docker's image
 * manifest, version 2, schema 2. What a blob really is its first bytes tell.
 */
const LAYER =
  /^application\/vnd\.(?:oci\.image\.layer(?:\.nondistributable)?\.v1\.tar(?:\+gzip|\+zstd)?|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.gzip|\.zstd)?)$/;

export const isLayer = (mediaType: string): boolean => LAYER.test(mediaType);
