import type { RequestContext } from '../base/context.ts';
import type { Digest } from '../base/digest.ts';
import type { Labels } from '../base/labels.ts';
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
   * when it resolves; a failure leaves nothing in a tree that was empty. Where the snapshot's parent comes at
   * Commit, the layer waits for that: what only its tree can tell, Commit says.
   * @throws NotFound: no such blob; Unimplemented: not the media type of a layer, or a snapshot whose parent comes at
   * Commit to somebody else's snapshotter; InvalidArgument: no archive, or one that wants out of its root;
   * FailedPrecondition: files were put into such a snapshot already; DataLoss: corrupt, cut off, or (where asked) not what its
   * digest says; Canceled
   */
  apply(ctx: RequestContext, layer: Descriptor, mounts: readonly Mount[]): Promise<Descriptor>;
  /**
   * Applies these layers one after another, in this order, some of them perhaps not at all. While one is written and
   * committed, the next is read, verified and inflated, as far as memory is bounded. It changes nothing else: what is
   * wrong with a layer, its own `apply` says. Disposing ends what was read ahead. Where each call is a request, it
   * is not there.
   */
  inOrder?(ctx: RequestContext, layers: readonly Descriptor[]): Applier & AsyncDisposable;
}

export interface CompareOptions {
  /** Of a layer's; empty for the usual one, OCI's with gzip. */
  readonly mediaType: string;
  /** Of the ingest; empty for one of its own. */
  readonly ref: string;
  /** For the blob, unless the store has it already. */
  readonly labels: Labels;
  /** Nanoseconds since the epoch: later times in the layer become this one. */
  readonly sourceDateEpoch: bigint | undefined;
}

/** Makes layers of snapshots. */
export interface Comparer {
  /**
   * Stores the layer that makes the tree of `newer` out of that of `older`, and labels it with its diff
   * ID. The same trees make the same blob. `older` may have no mount: then all is new. What fails leaves
   * no ingest. Sockets and files whose names begin with `.wh.` are in no layer.
   * @throws OpError Unimplemented: not the media type of a layer, or mounts that are no single tree; NotFound;
   * FailedPrecondition: an upper directory that only overlayfs understands; Aborted: a file changed
   * meanwhile; Canceled
   */
  compare(
    ctx: RequestContext,
    older: readonly Mount[],
    newer: readonly Mount[],
    options: CompareOptions,
  ): Promise<Descriptor>;
}
