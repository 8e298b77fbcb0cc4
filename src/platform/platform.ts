import type { Algorithm } from '../base/digest.ts';

/**
 * The syscalls Node lacks, by their names, all blocking: only for calls that cannot wait for a disk, or
 * in a worker. Each throws an OpError whose code and message come from errno, path and call.
 */
export interface Linux {
  /** Flushes the whole file system that holds `path`. syncfs(2) */
  syncfs(path: string): void;
  /** Whether readdir there tells file types, which overlayfs needs. */
  supportsDType(directory: string): boolean;
  /** The mount that holds `path`: type of its file system, and its source, which is a device's path. */
  mountOf(path: string): { readonly type: string; readonly source: string };
  /** Detached: probes that a mount of this kind works, leaving no trace in any mount table. */
  canMountOverlay(options: {
    lower: string;
    upper: string;
    work: string;
    options: readonly string[];
  }): boolean;
}

/** Sum over distinct inodes: count, and st_blocks × 512 bytes. */
export interface TreeSize {
  readonly inodes: number;
  readonly size: number;
  /** Owner of the tree's root. */
  readonly uid: number;
  readonly gid: number;
}

export interface TreeToSeal {
  readonly path: string;
  /** What somebody counted while it was written: a tree that has more than some inodes is not walked then. */
  readonly counted?: Pick<TreeSize, 'inodes' | 'size'> | undefined;
}

export interface SealedTree extends TreeSize {
  /** Inodes and size are what was counted, not measured. */
  readonly isCounted: boolean;
}

/** Which part of a walk's sum a path belongs to. */
export interface PartRule {
  /** Its own blocks; undefined: they are not counted. */
  readonly own: string | undefined;
  /** All that is below, where no other rule says otherwise; undefined: it is not entered. */
  readonly below: string | undefined;
}

export interface DirectoryToMake {
  readonly path: string;
  readonly mode: number;
  /** Default 0:0. */
  readonly uid?: number;
  readonly gid?: number;
}

/** Sum over distinct inodes of a subvolume: count, and st_blocks × 512 bytes. */
export interface SubvolumeSize {
  readonly inodes: number;
  readonly size: number;
}

/** What a quota group counts, in bytes, as of the last commit of the file system. */
export interface QuotaGroup {
  readonly referenced: number;
  readonly exclusive: number;
}

export interface SubvolumeLimit {
  /** Of what the subvolume has to itself alone. */
  readonly bytes: bigint;
  /** FailedPrecondition where quotas are off; otherwise there is then no limit. */
  readonly required: boolean;
}

export interface SubvolumeToMake {
  /** Of its own, made with mode 0700: two snapshots into one directory wait for each other. */
  readonly directory: string;
  /** In that directory. What is there already goes first. */
  readonly path: string;
  /** The subvolume it is a snapshot of; without one it is empty, and its root has mode 0755. */
  readonly from?: string;
  readonly readOnly?: boolean;
  readonly limit?: SubvolumeLimit;
  /** Fails as a sync does where what was written to the source before did not reach the disk. */
  readonly flush?: boolean;
  /** Its size is wanted too, as `measure` tells it. */
  readonly measureAgainst?: { readonly base: string | undefined };
}

export interface SubvolumeMade {
  readonly id: number;
  /** The limit holds, or none was asked for. */
  readonly limited: boolean;
  /** Undefined where nobody wants it, or measuring takes longer than callers should wait. */
  readonly size: SubvolumeSize | undefined;
}

export interface MeasuredSubvolume {
  readonly generation: number;
  /** Undefined when the generation was the known one. */
  readonly size: SubvolumeSize | undefined;
  /** Where quotas are on. */
  readonly group: QuotaGroup | undefined;
}

export interface DirectoryOfSubvolumes {
  readonly name: string;
  readonly subvolumes: readonly { readonly name: string; readonly id: number }[];
}

/** Subvolumes of btrfs, in workers. `folder` holds the snapshots of one driver. */
export interface SubvolumeJobs {
  /**
   * A snapshot is on disk when this resolves, and with `flush` all that was written to its source before;
   * an empty subvolume need not be. Calls of one folder that come together share a transaction.
   */
  make(folder: string, subvolume: SubvolumeToMake): Promise<SubvolumeMade>;
  /** The same as `measure` for one that nothing is written to any more. */
  measureSealed(
    folder: string,
    request: { readonly path: string; readonly base: string | undefined },
    signal: AbortSignal,
  ): Promise<SubvolumeSize>;
  /**
   * Measures one that is being written to, without what is the same in `base`, the read-only subvolume
   * that it is a snapshot of; nothing is walked when its generation is the known one.
   */
  measure(
    folder: string,
    request: {
      readonly path: string;
      readonly base: string | undefined;
      readonly knownGeneration: number | undefined;
    },
    signal: AbortSignal,
  ): Promise<MeasuredSubvolume>;
  /** @returns false where quotas are off */
  limit(path: string, limit: SubvolumeLimit): Promise<boolean>;
  /** Removes subvolumes, those inside them, and directories of subvolumes; absent is fine. */
  remove(folder: string, paths: readonly string[], signal: AbortSignal): Promise<void>;
  list(folder: string): Promise<readonly DirectoryOfSubvolumes[]>;
  /** Switches simple quotas on where quotas are off. @throws OpError FailedPrecondition */
  enableQuotas(folder: string): Promise<void>;
}

export interface MountToMake {
  readonly type: string;
  readonly source: string;
  /** As mount(8) takes them, `loop` included. */
  readonly options: readonly string[];
}

export interface DirectoryBeneath {
  /** Nothing outside of it is made, wherever links lead. */
  readonly root: string;
  /** Of which all but the last part is there. */
  readonly path: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** Mounts that others see, in workers. `folder` is a directory for what belongs together. */
export interface MountJobs {
  /**
   * Mounts at `point`, a new directory in the folder; of type `loop`: attaches the file to a device, to
   * which `point` is then a link. Makes the folder if need be; after a failure it is to be taken down.
   */
  make(folder: string, mount: MountToMake, point: string): Promise<void>;
  /** Where there are mounts, or links to devices, in the folders of `parent`. */
  list(parent: string): Promise<ReadonlySet<string>>;
  /**
   * Takes down all that is mounted or attached in the folder, the last first, and removes it.
   * @throws OpError FailedPrecondition in use: some of it is still there
   */
  takeDown(folder: string): Promise<void>;
  /**
   * @throws OpError FailedPrecondition something else of that name, or a directory of another mode; NotFound
   * without its parent; InvalidArgument outside of the root
   */
  makeDirectory(directory: DirectoryBeneath): Promise<void>;
}

/** Hexadecimal digests of all bytes a hashed file holds, by algorithm asked for. */
export type HexDigests = Readonly<Partial<Record<Algorithm, string>>>;

/**
 * An append-only file whose digests run along, in a worker. Calls must not overlap. Disposing closes
 * it and keeps the bytes. What was appended survives the daemon's death; a power cut only after `sync`.
 */
export interface HashedFile extends AsyncDisposable {
  /**
   * Resolves when the file has it. Takes over the memory of `data`, and up to 4 KiB around it in its
   * buffer: a message's payload is handed on without a copy.
   */
  append(data: Uint8Array): Promise<HexDigests>;
  /** Drops all bytes. */
  truncate(): Promise<HexDigests>;
  /** Another digest from here on; what is held is read again. */
  addAlgorithm(algorithm: Algorithm): Promise<HexDigests>;
  /** Resolves when the bytes are on disk; holds up no other file's appends. */
  sync(): Promise<void>;
}

/** A blob to be put under its final name; its bytes are in memory, or in a file that is already synced and that keeps its name. */
export interface BlobToPlace {
  readonly source: Uint8Array | { readonly path: string };
  /** Absolute path under blobs/; its folder exists. */
  readonly target: string;
  /** Where bytes from memory are written first: same file system, no such file yet. */
  readonly temporary: string;
}

/**
 * Heavy or slow file work; that it runs in threads is nobody's business. Every method honours its
 * signal, rejects with an OpError, and a call that hangs delays no call on another lane.
 */
export interface FileJobs extends AsyncDisposable {
  readonly subvolumes: SubvolumeJobs;
  readonly mounts: MountJobs;
  /**
   * Makes directories in order, with just this mode and owner, whatever the umask; one that exists is
   * given them. Calls that come together share a message to the worker.
   */
  makeDirectories(directories: readonly DirectoryToMake[]): Promise<void>;
  /** A full copy with reflinks where they work: links, holes, xattrs, devices, owners, modes, times. */
  copyTree(from: string, to: string, signal: AbortSignal): Promise<void>;
  measureTree(path: string, signal: AbortSignal): Promise<TreeSize>;
  /**
   * What is allocated (st_blocks × 512) below and including `root`, by part, in one walk. Files with a name
   * where the walk does not go are not counted.
   * @param part of what no rule says anything about
   * @param rules by path relative to `root`
   */
  measureParts(
    root: string,
    part: string,
    rules: ReadonlyMap<string, PartRule>,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, number>>;
  /** Removes each path and all below it, without following links or crossing mounts; absent is fine. */
  removeTrees(paths: readonly string[], signal: AbortSignal): Promise<void>;
  /**
   * Brings the tree to the disk, with the directories above it up to `fileSystem`, a directory of the
   * same file system, and measures it then, unless what it holds was counted. Calls for one `fileSystem` that come
   * together share a flush of all of it; a few small directories are synced by themselves. With `flush: false` only measured.
   * @returns undefined where measuring takes longer than callers should wait: it is on the disk all the same
   */
  sealTree(
    tree: TreeToSeal,
    fileSystem: string,
    flush: boolean,
    signal: AbortSignal,
  ): Promise<SealedTree | undefined>;
  /** Flushes the file system that holds the path; shared as sealTree's. */
  syncFileSystem(path: string): Promise<void>;
  /** Opens or makes a file for appending; what it holds is hashed first. */
  openHashedFile(
    path: string,
    algorithms: readonly Algorithm[],
  ): Promise<{ file: HashedFile; size: number; digests: HexDigests }>;
  /**
   * The blob is at its target, with mode 0444, whole and on disk, and so is its name: bytes and their
   * sync, then rename, then sync of the folder. Calls that come together share their syncs. A crash
   * leaves the temporary file, or the blob unacknowledged. With `sync: false` a power cut may take
   * bytes and name, or leave the name without its bytes.
   */
  placeBlob(blob: BlobToPlace, options: { readonly sync: boolean }): Promise<void>;
}
