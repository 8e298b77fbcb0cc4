import type { RequestContext } from '../base/context.ts';
import type { Node } from '../gc/collectible.ts';
import type { Kind } from '../snapshotters/snapshotter.ts';

/** A share of what the disk holds. All sizes here are allocated bytes, as du(1) counts them. */
export interface Part {
  /** `content`, `snapshots/SNAPSHOTTER`, `ingests`, `metadata`, `trash` or `folders`. */
  readonly type: string;
  /** Of blobs, snapshots, ingests. */
  readonly count: number;
  readonly bytes: number;
  /** Of `bytes`: what one root keeps alone, what several keep, and what none keeps. */
  readonly unique: number;
  readonly shared: number;
  readonly unreferenced: number;
}

/** An image, a container or a lease. */
export interface OwnerUsage extends Node {
  /** What a collection would free were it gone. */
  readonly unique: number;
  /** The rest of what it keeps. */
  readonly shared: number;
}

export interface SnapshotUsage extends Node {
  /** The name of its directory. */
  readonly id: string;
  readonly kind: Kind;
  /** Without its parents. */
  readonly bytes: number;
  /** How many roots keep it; 2: more than one. */
  readonly keepers: 0 | 1 | 2;
}

export interface DiskUsage {
  /** Folders, each with all that is below, none within another: what `total` is about. */
  readonly roots: readonly string[];
  /** Their sum is `total`. */
  readonly parts: readonly Part[];
  readonly total: number;
  readonly owners: readonly OwnerUsage[];
  readonly snapshots: readonly SnapshotUsage[];
  /** Why images, containers and leases, and so who keeps what, are not known; '' when they are. */
  readonly namesUnknown: string;
}

/** What a path or an id belongs to. */
export interface Identity {
  /** As that of a part, or `images`, `containers`, `leases`. */
  readonly type: string;
  readonly namespaces: readonly string[];
  readonly key: string;
  /** Of a snapshot, as below; '' for others. */
  readonly id: string;
  readonly kind: Kind | '';
  readonly parent: string;
  /** Of a layer's blob, and of the snapshot that it was unpacked to; '' for others. */
  readonly diffId: string;
  readonly layer: string;
  /** The roots that keep it. */
  readonly keptBy: readonly Node[];
}

export interface Place {
  readonly type: string;
  readonly namespaces: readonly string[];
  readonly key: string;
  /** Of a blob its file, of an ingest its folder, of a snapshot its directory. */
  readonly path: string;
  /** Of a snapshot: what is mounted, what overlay works in, and the trees below, nearest first. */
  readonly tree: string;
  readonly work: string;
  readonly lowers: readonly string[];
}

/** What to identify: an id of any kind, or a path. */
export type Question =
  | { readonly id: string }
  /** Ways to write one absolute path; the first that is below a root counts. */
  | { readonly paths: readonly string[] };

/** Who has what on the disk, in all namespaces. */
export interface Disk {
  /** @param options verbose: with owners and snapshots, else none are named */
  usage(ctx: RequestContext, options: { readonly verbose: boolean }): Promise<DiskUsage>;
  /** @throws OpError NotFound for what is neither below a root nor known */
  whoIs(ctx: RequestContext, question: Question): Promise<readonly Identity[]>;
  /** Where the things of that name are, and all that they keep. @throws OpError NotFound */
  where(ctx: RequestContext, name: string): Promise<readonly Place[]>;
}
