import { chmod, mkdir, readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isOpError, messageOf, OpError } from '../../base/errors.ts';
import type { Labels } from '../../base/labels.ts';
import type {
  FileJobs,
  Linux,
  QuotaGroup,
  SubvolumeLimit,
  SubvolumeToMake,
} from '../../platform/platform.ts';
import type {
  DriverDependencies,
  DriverFactory,
  Durability,
  Sealed,
  SnapshotDriver,
  SnapshotNode,
  SnapshotPlaces,
} from '../driver.ts';
import { Leftovers } from '../leftovers.ts';
import type { Mount, Usage } from '../snapshotter.ts';
import { parseBtrfsConfig, type BtrfsConfig } from './config.ts';
import { maxSizeOf } from './max-size.ts';

/** Snapshots are private: setuid files in them must be out of other users' reach. */
const PRIVATE = 0o700;

/** So few inodes are measured at once, and need no check. */
const MEASURED_INODES = 16;

/** Names in a snapshot's directory. */
const WRITTEN = 'fs';
const SEALED = 'layer';

const EXCLUSIVE_LABEL = 'containerd.io/snapshot/btrfs.exclusive';
const REFERENCED_LABEL = 'containerd.io/snapshot/btrfs.referenced';

export const btrfs: DriverFactory = {
  name: 'btrfs',
  checkConfig: (table) => void parseBtrfsConfig(table),
  capabilities: () => [],
  checkRoot: (root, { linux }) => void deviceOf(root, linux),
  open: async ({ root, durability, table }, { linux, jobs, warn }) => {
    const config = parseBtrfsConfig(table);
    const folder = join(root, 'snapshots');
    await makePrivate(root, root);
    const device = deviceOf(root, linux);
    await makePrivate(folder, root);
    if (config.switchesQuotaOn) await jobs.subvolumes.enableQuotas(folder);
    return new BtrfsDriver({ folder, device, config, durability, jobs, warn });
  },
};

/**
 * The device that mounts name; of the folder that the root is to be made in, where it is not there yet.
 * @throws OpError FailedPrecondition
 */
function deviceOf(root: string, linux: Linux): string {
  for (let path = root; ; path = dirname(path)) {
    try {
      const { type, source } = linux.mountOf(path);
      if (type === 'btrfs') return source;
      throw new OpError(
        'FailedPrecondition',
        `${root}: is on ${type}, not on btrfs: mount one there ("mkfs.btrfs DEVICE", "mount DEVICE ${root}"), name a folder on one as the root, or use the driver overlay or native`,
      );
    } catch (error) {
      if (!isOpError(error, 'NotFound') || path === '/') throw error;
    }
  }
}

async function makePrivate(path: string, root: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
    await chmod(path, PRIVATE);
  } catch (error) {
    const message = `${root}: cannot be used as a root: ${messageOf(error)}`;
    throw new OpError('FailedPrecondition', message, { cause: error });
  }
}

interface BtrfsOptions {
  readonly folder: string;
  /** As mount(8) takes it. */
  readonly device: string;
  readonly config: BtrfsConfig;
  readonly durability: Durability;
  readonly jobs: FileJobs;
  readonly warn: DriverDependencies['warn'];
}

/** Ids of a snapshot's subvolumes, as mounts name them. */
interface Subvolumes {
  [WRITTEN]?: number;
  [SEALED]?: number;
}

interface KnownUsage {
  readonly generation: number;
  readonly usage: Usage;
}

/**
 * FOLDER/ID/fs is the subvolume of an active snapshot or of a view, FOLDER/ID/layer the read-only one of
 * a committed snapshot. Commit snapshots the first to the second, in one transaction that carries all its files; the
 * first goes when the record says so. A crash leaves either one too many: `repair` drops a layer that
 * was not acknowledged, `committed` an fs that is no longer needed.
 */
class BtrfsDriver implements SnapshotDriver {
  readonly #options: BtrfsOptions;
  readonly #subvolumes = new Map<string, Subvolumes>();
  /** Of active snapshots; committed ones have theirs in the record. */
  readonly #usages = new Map<string, KnownUsage>();
  /** What quota groups of active snapshots counted at their last Usage. */
  readonly #groups = new Map<string, QuotaGroup>();
  readonly #leftovers: Leftovers;
  #warnedOfQuota = false;
  /** Under way. */
  #seals = 0;

  constructor(options: BtrfsOptions) {
    this.#options = options;
    const { folder, jobs, warn } = options;
    this.#leftovers = new Leftovers({
      remove: (paths, signal) => jobs.subvolumes.remove(folder, paths, signal),
      warn,
    });
  }

  async create(node: SnapshotNode): Promise<void> {
    const [parent] = node.parentIds;
    const from = parent === undefined ? undefined : this.#layerOf(parent);
    const limit = this.#limitOf(node);
    const { id, limited } = await this.#make({
      directory: this.#directoryOf(node.id),
      path: this.#pathOf(node.id, WRITTEN),
      ...(from === undefined ? {} : { from, readOnly: node.kind === 'view' }),
      ...(limit === undefined ? {} : { limit }),
    });
    this.#subvolumes.set(node.id, { [WRITTEN]: id });
    if (!limited) this.#warnOfQuota();
  }

  /**
   * What is missing was empty or is its parent's, so it can be made again. A limit may be lost with a
   * power cut, and goes when quotas are switched off, so it is set anew.
   */
  async repair(node: SnapshotNode): Promise<void> {
    const there = this.#subvolumes.get(node.id);
    if (there?.[WRITTEN] === undefined) return this.create(node);
    if (there[SEALED] !== undefined) {
      delete there[SEALED];
      this.#leftovers.add(this.#pathOf(node.id, SEALED), true);
    }
    const limit = this.#limitOf(node);
    if (limit === undefined) return;
    const path = this.#pathOf(node.id, WRITTEN);
    if (!(await this.#options.jobs.subvolumes.limit(path, limit))) this.#warnOfQuota();
  }

  repairsWhole(): boolean {
    return true;
  }

  /** Ids of subvolumes come from `list`, and with `repair`. */
  mountsNeedList(): boolean {
    return true;
  }

  /** Option for option what containerd's btrfs snapshotter answers (CONTRACT section 4). */
  mounts(node: SnapshotNode): readonly Mount[] {
    const id = this.#idOf(node.id, WRITTEN);
    const options = [`subvolid=${id}`, ...(node.kind === 'view' ? ['ro'] : [])];
    return [{ type: 'btrfs', source: this.#options.device, options }];
  }

  /** Beside Usage, which counts differently: docs/operations.md compares them. */
  shownLabels(node: SnapshotNode): Labels | undefined {
    const group = this.#groups.get(node.id);
    if (group === undefined) return undefined;
    return new Map([
      [EXCLUSIVE_LABEL, String(group.exclusive)],
      [REFERENCED_LABEL, String(group.referenced)],
    ]);
  }

  async usage(node: SnapshotNode, signal: AbortSignal): Promise<Usage> {
    const { folder, jobs } = this.#options;
    const [parent] = node.parentIds;
    const base = parent === undefined ? undefined : this.#layerOf(parent);
    if (node.kind === 'committed') {
      const sealed = { path: this.#layerOf(node.id), base };
      return jobs.subvolumes.measureSealed(folder, sealed, signal);
    }
    const known = this.#usages.get(node.id);
    const path = this.#pathOf(node.id, WRITTEN);
    const request = { path, base, knownGeneration: known?.generation };
    const { generation, size, group } = await jobs.subvolumes.measure(folder, request, signal);
    if (group !== undefined && this.#subvolumes.has(node.id)) this.#groups.set(node.id, group);
    if (size === undefined && known !== undefined) return known.usage;
    if (size === undefined) throw new Error(`${request.path}: not measured, and not known`);
    if (this.#subvolumes.has(node.id)) this.#usages.set(node.id, { generation, usage: size });
    return size;
  }

  async seal(node: SnapshotNode, counted: Usage | undefined): Promise<Sealed> {
    this.#seals++;
    try {
      return await this.#seal(node, counted);
    } finally {
      this.#seals--;
    }
  }

  committed(node: SnapshotNode): boolean {
    const there = this.#subvolumes.get(node.id);
    if (there?.[SEALED] === undefined) return false;
    if (there[WRITTEN] !== undefined) {
      delete there[WRITTEN];
      this.#forget(node.id);
      this.#leftovers.add(this.#pathOf(node.id, WRITTEN), this.#seals > 0);
    }
    return true;
  }

  settled(): Promise<void> {
    return this.#leftovers.removed();
  }

  discard(ids: readonly string[], signal: AbortSignal): Promise<void> {
    const { folder, jobs } = this.#options;
    for (const id of ids) {
      this.#subvolumes.delete(id);
      this.#forget(id);
    }
    const directories = ids.map((id) => this.#directoryOf(id));
    return jobs.subvolumes.remove(folder, directories, signal);
  }

  async list(): Promise<readonly string[]> {
    const { folder, jobs } = this.#options;
    // A new root needs no thread.
    if ((await readdir(folder)).length === 0) return [];
    const found = (await jobs.subvolumes.list(folder)).filter(({ name }) => /^\d+$/.test(name));
    for (const { name, subvolumes } of found) {
      const ids: Subvolumes = {};
      for (const { name: part, id } of subvolumes) {
        if (part === WRITTEN || part === SEALED) ids[part] = id;
      }
      this.#subvolumes.set(name, ids);
    }
    return found.map(({ name }) => name);
  }

  /** What a view has of its own is nothing: all of it is its parent's. */
  placesOf({ id, kind }: SnapshotNode): SnapshotPlaces {
    const [written, sealed] = [this.#pathOf(id, WRITTEN), this.#pathOf(id, SEALED)];
    return {
      directory: this.#directoryOf(id),
      measured: [written, sealed],
      tree: kind === 'committed' ? sealed : written,
      work: undefined,
      lowers: [],
    };
  }

  keepsDirectory(): boolean {
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#leftovers[Symbol.asyncDispose]();
  }

  async #seal(node: SnapshotNode, counted: Usage | undefined): Promise<Sealed> {
    const [parent] = node.parentIds;
    const isCounted = counted !== undefined && counted.inodes > MEASURED_INODES;
    const base = parent === undefined ? undefined : this.#layerOf(parent);
    const { id, size } = await this.#make({
      directory: this.#directoryOf(node.id),
      path: this.#pathOf(node.id, SEALED),
      from: this.#pathOf(node.id, WRITTEN),
      readOnly: true,
      flush: this.#options.durability === 'full',
      ...(isCounted ? {} : { measureAgainst: { base } }),
    });
    this.#subvolumes.set(node.id, { ...this.#subvolumes.get(node.id), [SEALED]: id });
    return { usage: isCounted ? counted : size, isToBeChecked: isCounted };
  }

  #make(subvolume: SubvolumeToMake) {
    const { folder, jobs } = this.#options;
    return jobs.subvolumes.make(folder, subvolume);
  }

  #forget(id: string): void {
    this.#usages.delete(id);
    this.#groups.delete(id);
  }

  #limitOf(node: SnapshotNode): SubvolumeLimit | undefined {
    const bytes = node.kind === 'active' ? maxSizeOf(node.labels) : undefined;
    return bytes === undefined
      ? undefined
      : { bytes, required: this.#options.config.enforcesMaxSize };
  }

  #warnOfQuota(): void {
    if (this.#warnedOfQuota) return;
    this.#warnedOfQuota = true;
    this.#options.warn(
      { root: this.#options.folder },
      'snapshots ask for a size limit, but quotas are off: they have none (quota = "on" switches them on)',
    );
  }

  #layerOf(id: string): string {
    this.#idOf(id, SEALED);
    return this.#pathOf(id, SEALED);
  }

  /** @throws OpError FailedPrecondition where a crash or somebody took the subvolume */
  #idOf(id: string, part: keyof Subvolumes): number {
    const found = this.#subvolumes.get(id)?.[part];
    if (found !== undefined) return found;
    throw new OpError(
      'FailedPrecondition',
      `subvolume ${this.#pathOf(id, part)} is not there: remove its snapshot and make it again`,
    );
  }

  #directoryOf(id: string): string {
    return join(this.#options.folder, id);
  }

  #pathOf(id: string, part: keyof Subvolumes): string {
    return join(this.#options.folder, id, part);
  }
}
