import type { Labels } from '../base/labels.ts';
import type { FileJobs, Linux } from '../platform/platform.ts';
import type { Info, Kind, Mount, Usage } from './snapshotter.ts';

/** A snapshot as a driver sees it: ids only (decimal digits, never reused), nearest parent first. */
export interface SnapshotNode {
  readonly id: string;
  readonly kind: Kind;
  readonly parentIds: readonly string[];
  readonly labels: Labels;
}

/** On a snapshot that is prepared without a parent it says which one comes at Commit: for whoever unpacks to set. */
export const PARENT_CHAIN_ID = 'containerd.io/snapshot/parent-chain-id';

/**
 * A directory beside the upper one of an overlay snapshot says that its parent comes at Commit. Layers that are
 * applied to it are kept in here until then.
 */
export const STAGED = 'staged';

/** A snapshot whose parents are known at last. */
export interface Rebase {
  /** The directory with its staged layers. */
  readonly staged: string;
  /** What the layers are written into; with them it holds nothing else. */
  readonly upper: string;
  /** The nearest parent first; none where the snapshot stays without. */
  readonly lowers: readonly string[];
  /** Of the upper directory, unless a layer says otherwise. */
  readonly owner: { readonly uid: number; readonly gid: number };
  /** Where overlay keeps its marks. */
  readonly xattrPrefix: 'trusted.' | 'user.';
}

/** Writes staged layers to where they belong. */
export interface Rebaser {
  /**
   * Makes of the upper directory what Apply would have made of it had the parents been known then; without staged
   * layers it stays as it is. The staged ones stay, so it can be done again, whatever became of it before. When it
   * throws the upper directory is empty. Not on disk when it resolves.
   * @returns usage of the upper directory; undefined where only a walk tells
   * @throws OpError as Applier.apply does for what its tree has to be known for
   */
  rebase(rebase: Rebase, signal: AbortSignal): Promise<Usage | undefined>;
}

/** What was counted while layers were written. */
export interface Accounts {
  /** One is being written now. */
  readonly isWriting: boolean;
  /**
   * Usage of the tree that mounts stand for, as it was when a layer had been written into it, and had been the first
   * thing in there: what others have done to it since is not in it. Tells once.
   * @returns undefined where that is not known
   */
  take(mounts: readonly Mount[]): Usage | undefined;
}

/** What became of an active snapshot. */
export interface Sealed {
  /** Undefined where measuring takes long: SnapshotDriver.usage tells it later. */
  readonly usage: Usage | undefined;
  /** It is what was counted once; whether it still holds SnapshotDriver.usage tells. */
  readonly isToBeChecked: boolean;
}

/** Where a snapshot is on the disk. */
export interface SnapshotPlaces {
  /** All of it is in here. */
  readonly directory: string;
  /** What `usage` counts, each with all that is below. */
  readonly measured: readonly string[];
  /** The tree that is mounted, as far as it is its own. */
  readonly tree: string;
  /** What overlay works in. */
  readonly work: string | undefined;
  /** The trees below it, of overlay, nearest first. */
  readonly lowers: readonly string[];
}

/** A snapshot as it lies on the disk. */
export interface StoredSnapshot extends Info {
  readonly id: string;
  /** None for a view that shows its parent's. */
  readonly places: SnapshotPlaces | undefined;
}

/**
 * Makes, mounts, measures, seals and discards directories. Knows no names, no metadata, no gRPC; the
 * tree above it decides the order of calls and never makes two at a time for one id.
 */
export interface SnapshotDriver extends AsyncDisposable {
  /** Remove answers only when the directory is gone (overlay's `sync_remove`). */
  readonly removesAtOnce?: boolean;
  /** A parent may come as late as Commit: to `seal`, in a node that `create` saw without. */
  readonly rebases?: boolean;
  /** Labels that Stat, Update and List show beside those that were stored. */
  shownLabels?(node: SnapshotNode): Labels | undefined;
  /**
   * Makes what `node` needs on disk. What it copies of its parents is on disk for good when this
   * resolves; empty directories need not be.
   * @throws OpError InvalidArgument for labels that ask for the impossible; nothing is left then
   */
  create(node: SnapshotNode): Promise<void>;
  /**
   * Makes again what a crash took of an active snapshot or a view, whose record it left: only what
   * was empty. For start-up.
   */
  repair(node: SnapshotNode): Promise<void>;
  /** Whether `repair` can make all of `node`, so that its record need not wait for `create`. */
  repairsWhole(node: SnapshotNode): boolean;
  /** `mounts` tells what `list` and `repair` have read from the disk: it is not called before. */
  mountsNeedList?(node: SnapshotNode): boolean;
  /** From memory only: no I/O. @throws OpError FailedPrecondition for what a crash took */
  mounts(node: SnapshotNode): readonly Mount[];
  /** Walks an active snapshot, or one that was sealed without being measured, in a worker. */
  usage(node: SnapshotNode, signal: AbortSignal): Promise<Usage>;
  /**
   * Makes an active snapshot's files final: resolves when they are on disk (or, with durability `metadata`, measured).
   * @param counted its usage, if nobody has written into it since that was counted: it is not walked then
   * @throws OpError also for layers that turn out not to fit the parents, where the driver rebases
   */
  seal(node: SnapshotNode, counted: Usage | undefined, signal: AbortSignal): Promise<Sealed>;
  /**
   * The record of a sealed snapshot says committed: what only the active one needed may go, behind the
   * answer. Also for every committed snapshot that `list` named at start-up.
   * @returns false when what was sealed is not there
   */
  committed?(node: SnapshotNode): boolean;
  /** Resolves when what `committed` let go is gone from the disk, or could not go. */
  settled?(): Promise<void>;
  /** Removes what the ids left on disk, those that left nothing included; in a worker. */
  discard(ids: readonly string[], signal: AbortSignal): Promise<void>;
  /** The ids that have something on disk; for start-up. */
  list(): Promise<readonly string[]>;
  /** Of one that keeps a directory. No I/O. */
  placesOf(node: SnapshotNode): SnapshotPlaces;
  /** Whether `node` has something on disk, so that `list()` must name it. */
  keepsDirectory(node: SnapshotNode): boolean;
}

export interface DriverDependencies {
  readonly linux: Linux;
  readonly jobs: FileJobs;
  readonly rebaser: Rebaser;
  readonly warn: (fields: Record<string, unknown>, message: string) => void;
}

/** The driver's own part of `[snapshotter.NAME]`, unparsed. */
export type ConfigTable = Readonly<Record<string, unknown>>;

export type Durability = 'full' | 'metadata';

export interface DriverOptions {
  readonly root: string;
  readonly durability: Durability;
  readonly table: ConfigTable;
}

/** What drivers.ts lists. The config's type stays inside the driver's folder. */
export interface DriverFactory {
  readonly name: string;
  /** @throws OpError InvalidArgument naming the key that is wrong; for `ballast config check` too. */
  checkConfig(table: ConfigTable): void;
  /** What containerd's config is to say of it on this kernel, such as `remap-ids`. */
  capabilities(table: ConfigTable): readonly string[];
  /**
   * Looks at what a root that may not be there yet is to lie on, before it is claimed: a root that was
   * refused is still a new one when the right disk is mounted there.
   * @throws OpError FailedPrecondition as `open`
   */
  checkRoot?(root: string, dependencies: Pick<DriverDependencies, 'linux'>): void;
  /**
   * Makes the root's folders and looks whether this kernel and file system can serve.
   * @throws OpError FailedPrecondition saying what is wrong with the root and what to do
   */
  open(options: DriverOptions, dependencies: DriverDependencies): Promise<SnapshotDriver>;
}
