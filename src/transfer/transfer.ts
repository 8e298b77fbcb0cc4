import type { RequestContext } from '../base/context.ts';
import type { Labels } from '../base/labels.ts';
import type { Target } from '../images/image.ts';

/** In the words of an OCI index. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant: string;
}

/** Names that images get besides, or are looked up by. */
export interface ImageReference {
  readonly name: string;
  /** The name is that of a repository, and a tag or a digest joins it. The rest counts for these only. */
  readonly isPrefix: boolean;
  /** A whole name that the archive gives is taken also where it has another prefix. */
  readonly allowOverwrite: boolean;
  /** PREFIX@DIGEST is a name too. */
  readonly addDigest: boolean;
  /** Not where there was another name. */
  readonly skipNamedDigest: boolean;
}

/** How images are stored. */
export interface ImageDestination {
  /** Of what is stored itself: for an archive, its index. Empty for none. */
  readonly name: string;
  readonly labels: Labels;
  /** What is kept of an index; empty for all. */
  readonly platforms: readonly Platform[];
  /** Manifests and configs of other platforms too. */
  readonly allMetadata: boolean;
  /** Of an index; 0 for all. */
  readonly manifestLimit: number;
  readonly references: readonly ImageReference[];
  /** Snapshotters to unpack into, '' for the usual one; the first that is known is taken. Empty: not at all. */
  readonly unpacks: readonly string[];
}

/** An archive as it comes. */
export interface ImportArchive {
  readonly bytes: AsyncIterable<Uint8Array>;
  /** Otherwise it is a plain tar archive. */
  readonly mayBeCompressed: boolean;
  /** Of an archive that has no manifests. */
  readonly compressLayers: boolean;
}

export interface ExportOptions {
  /** What an index must have one of, the best first; empty for ours. */
  readonly platforms: readonly Platform[];
  readonly allPlatforms: boolean;
  readonly skipDockerManifest: boolean;
  readonly skipNonDistributable: boolean;
}

/** What a client may be shown. The events are containerd's. */
export interface Progress {
  readonly event: string;
  /** Of an image; empty for what concerns all. */
  readonly name: string;
  readonly target: Target | undefined;
}
export type Report = (progress: Progress) => Promise<void>;

/**
 * Images from and to archives. Whatever is made is kept by the request's lease, or by one that lasts as long
 * as the call; what is left of one that fails nobody keeps.
 */
export interface Transfers {
  /**
   * Stores the images of an archive: an OCI image layout, or what `docker save` writes. On disk when it
   * resolves. A crash leaves blobs and snapshots, or images too; never an image without its blobs.
   * @throws OpError InvalidArgument: no archive of images, no snapshotter, a layer with another diff ID;
   * DataLoss: cut off; NotFound: a blob is not in it, or nothing is left for these platforms; as
   * Applier.apply and Snapshotter.commit do; ResourceExhausted; Canceled
   */
  import(
    ctx: RequestContext,
    archive: ImportArchive,
    destination: ImageDestination,
    report: Report,
  ): Promise<void>;
  /**
   * Writes an OCI image layout that `docker load` understands too.
   * @param write gets the bytes in order; they are valid until it resolves
   * @throws OpError NotFound: an image, a blob, or a manifest for the platform; Unimplemented: a reference is
   * a prefix; InvalidArgument; DataLoss: a blob is not what its digest says
   */
  export(
    ctx: RequestContext,
    source: Pick<ImageDestination, 'name' | 'references'>,
    options: ExportOptions,
    write: (bytes: Uint8Array) => Promise<void>,
    report: Report,
  ): Promise<void>;
  /** Gives an image more names; one that is there already is of this image now. @throws OpError NotFound */
  tag(ctx: RequestContext, name: string, destination: ImageDestination): Promise<void>;
}
