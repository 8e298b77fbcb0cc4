import type { RequestContext } from '../base/context.ts';
import type { Digest } from '../base/digest.ts';
import type { Mount } from '../snapshotters/snapshotter.ts';

/** A blob as the OCI image specification's descriptor.md has it. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  /** As somebody declared it: never trusted. */
  readonly size: number;
}

/** Of a layer without compression: its digest is the layer's diff ID. */
export const PLAIN_LAYER = 'application/vnd.oci.image.layer.v1.tar';

/** Unpacks layers into snapshots. */
export interface Applier {
  /**
   * Applies a layer's blob to the tree that the mounts stand for, and tells of the plain archive. On disk
   * when it resolves; a failure leaves nothing in a tree that was empty.
   * @throws NotFound: no such blob; Unimplemented: not the media type of a layer; InvalidArgument: no archive,
   * or one that wants out of its root; DataLoss: corrupt, cut off, or not what its digest says; Canceled
   */
  apply(ctx: RequestContext, layer: Descriptor, mounts: readonly Mount[]): Promise<Descriptor>;
}
