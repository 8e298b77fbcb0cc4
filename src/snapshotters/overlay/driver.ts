import { chmod, lstat, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { pathExists } from 'fs-extra/esm';
import { isOpError, messageOf, OpError } from '../../base/errors.ts';
import type { Labels } from '../../base/labels.ts';
import type { DirectoryToMake, FileJobs } from '../../platform/platform.ts';
import {
  PARENT_CHAIN_ID,
  type DriverDependencies,
  type DriverFactory,
  type Durability,
  type Rebaser,
  type Sealed,
  type SnapshotDriver,
  type SnapshotNode,
  type SnapshotPlaces,
} from '../driver.ts';
import { Leftovers } from '../leftovers.ts';
import type { Mount, Usage } from '../snapshotter.ts';
import { parseOverlayConfig, type OverlayConfig } from './config.ts';
import { idMapping, type IdMapping } from './id-mapping.ts';
import { overlayMounts, stagedOf, upperOf, workOf } from './mounts.ts';
import { inUserNamespace, mapsIds, probeOverlay, type OverlayProbe } from './probe.ts';

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Layers are private: setuid files in them must be out of other users' reach. */
const PRIVATE = 0o700;
const UPPERDIR_LABEL = 'containerd.io/snapshot/overlay.upperdir';
const USER_XATTR = 'userxattr';

/**
 * Whether whiteouts that are written before the parent is known survive, whoever writes them: containerd's own
 * differ writes none in a user namespace, and never those of `userxattr` (CONTRACT section 10).
 */
const canRebase = ({ mountOptions }: OverlayConfig): boolean =>
  !inUserNamespace() && !mountOptions.includes(USER_XATTR);

export const overlay: DriverFactory = {
  name: 'overlay',
  checkConfig: (table) => void parseOverlayConfig(table),
  capabilities: (table) => {
    const config = parseOverlayConfig(table);
    return [
      ...(config.slowChown ? [] : ['only-remap-ids']),
      ...(mapsIds() ? ['remap-ids'] : []),
      ...(canRebase(config) ? ['rebase'] : []),
    ];
  },
  open: async ({ root, durability, table }, { linux, jobs, rebaser, warn }) => {
    const config = parseOverlayConfig(table);
    if (/[:,]/.test(root)) {
      throw new OpError('InvalidArgument', `${root}: overlay cannot mount a path with ":" or ","`);
    }
    const folder = join(root, 'snapshots');
    try {
      for (const path of [root, folder]) {
        await mkdir(path, { recursive: true });
        await chmod(path, PRIVATE);
      }
    } catch (error) {
      throw new OpError(
        'FailedPrecondition',
        `${root}: cannot be used as a root: ${messageOf(error)}`,
      );
    }
    return new OverlayDriver({
      folder,
      config,
      durability,
      jobs,
      rebaser,
      warn,
      probe: await probeOverlay(root, linux),
    });
  },
};

interface OverlayOptions {
  readonly folder: string;
  readonly config: OverlayConfig;
  readonly durability: Durability;
  readonly jobs: FileJobs;
  readonly rebaser: Rebaser;
  readonly warn: DriverDependencies['warn'];
  readonly probe: OverlayProbe;
}

/**
 * FOLDER/ID/fs is the layer; FOLDER/ID/work is overlay's own, there only for active snapshots.
 * FOLDER/ID/staged says of an active snapshot that its parent comes at Commit. Layers wait in it until `seal` knows
 * what is below them; when the record says committed it goes. A crash before leaves it to the next Commit, a crash
 * after leaves it to start-up.
 */
class OverlayDriver implements SnapshotDriver {
  readonly removesAtOnce: boolean;
  readonly rebases: boolean;
  readonly #options: OverlayOptions;
  readonly #mountOptions: readonly string[];
  /** Owners of committed layers' roots, which children inherit; never changing, so read once. */
  readonly #owners = new Map<string, Owner>();
  /** Ids with a directory for staged layers: labels may change later, how a snapshot is written may not. */
  readonly #staged = new Set<string>();
  readonly #leftovers: Leftovers;

  constructor(options: OverlayOptions) {
    const { config, probe, jobs, warn } = options;
    this.#options = options;
    this.removesAtOnce = config.syncRemove;
    this.rebases = canRebase(config);
    this.#leftovers = new Leftovers({
      remove: (paths, signal) => jobs.removeTrees(paths, signal),
      warn,
    });
    this.#mountOptions = [
      ...config.mountOptions,
      ...(probe.needsUserXattr ? [USER_XATTR] : []),
      ...(probe.knowsIndex && !config.mountOptions.some(isIndex) ? ['index=off'] : []),
    ];
  }

  async create(node: SnapshotNode): Promise<void> {
    if (!this.keepsDirectory(node)) {
      // A mapping that makes no sense is refused all the same.
      idMapping(node.labels);
      return;
    }
    if (this.#parentComesLater(node)) this.#staged.add(node.id);
    await this.#options.jobs.makeDirectories(await this.#directoriesOf(node));
  }

  /** What is still there keeps the mode and owner that a container may have given it. */
  async repair(node: SnapshotNode): Promise<void> {
    if (!this.keepsDirectory(node)) return;
    // A power cut may have taken the empty directory that says so.
    if (this.#parentComesLater(node)) this.#staged.add(node.id);
    const lost: DirectoryToMake[] = [];
    for (const directory of await this.#directoriesOf(node)) {
      if (!(await pathExists(directory.path))) lost.push(directory);
    }
    if (lost.length > 0) await this.#options.jobs.makeDirectories(lost);
  }

  repairsWhole(): boolean {
    return true;
  }

  /** Whether a parent is to come, the disk says. */
  mountsNeedList({ kind, parentIds }: SnapshotNode): boolean {
    return kind === 'active' && parentIds.length === 0;
  }

  mounts(node: SnapshotNode): readonly Mount[] {
    return overlayMounts(this.#options.folder, node, {
      overlay: this.#mountOptions,
      mapping: this.#mappingOf(node),
      isStaged: this.#staged.has(node.id),
    });
  }

  async usage(node: SnapshotNode, signal: AbortSignal): Promise<Usage> {
    const { folder, jobs } = this.#options;
    const { inodes, size } = await jobs.measureTree(upperOf(folder, node.id), signal);
    if (!this.#staged.has(node.id)) return { inodes, size };
    const staged = await jobs.measureTree(stagedOf(folder, node.id), signal);
    return { inodes: inodes + staged.inodes, size: size + staged.size };
  }

  /** What a rebase has counted needs no check: the upper directory is its own. */
  async seal(node: SnapshotNode, applied: Usage | undefined, signal: AbortSignal): Promise<Sealed> {
    const { folder, jobs, durability } = this.#options;
    const rebased = this.#staged.has(node.id) ? await this.#rebase(node, signal) : undefined;
    const tree = { path: upperOf(folder, node.id), counted: rebased ?? applied };
    const sealed = await jobs.sealTree(tree, folder, durability === 'full', signal);
    if (sealed === undefined) return { usage: undefined, isToBeChecked: false };
    const { inodes, size, uid, gid, isCounted } = sealed;
    this.#owners.set(node.id, { uid, gid });
    return { usage: { inodes, size }, isToBeChecked: isCounted && rebased === undefined };
  }

  committed({ id }: SnapshotNode): boolean {
    if (this.#staged.delete(id)) this.#leftovers.add(stagedOf(this.#options.folder, id), false);
    return true;
  }

  settled(): Promise<void> {
    return this.#leftovers.removed();
  }

  discard(ids: readonly string[], signal: AbortSignal): Promise<void> {
    const { folder, jobs } = this.#options;
    for (const id of ids) {
      this.#owners.delete(id);
      this.#staged.delete(id);
    }
    return jobs.removeTrees(
      ids.map((id) => join(folder, id)),
      signal,
    );
  }

  async list(): Promise<readonly string[]> {
    const { folder } = this.#options;
    const ids = (await readdir(folder)).filter((name) => /^\d+$/.test(name));
    const look = async (id: string): Promise<void> => {
      if (await pathExists(stagedOf(folder, id))) this.#staged.add(id);
    };
    await Promise.all(ids.map(look));
    return ids;
  }

  placesOf({ id, kind, parentIds }: SnapshotNode): SnapshotPlaces {
    const { folder } = this.#options;
    const tree = upperOf(folder, id);
    const staged = this.#staged.has(id) ? [stagedOf(folder, id)] : [];
    return {
      directory: join(folder, id),
      measured: kind === 'view' ? [] : [tree, ...staged],
      tree,
      work: kind === 'active' ? workOf(folder, id) : undefined,
      lowers: parentIds.map((parent) => upperOf(folder, parent)),
    };
  }

  keepsDirectory(node: SnapshotNode): boolean {
    return node.kind !== 'view' || node.parentIds.length === 0;
  }

  shownLabels(node: SnapshotNode): Labels | undefined {
    if (!this.#options.config.upperdirLabel || !this.keepsDirectory(node)) return undefined;
    return new Map([[UPPERDIR_LABEL, upperOf(this.#options.folder, node.id)]]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#leftovers[Symbol.asyncDispose]();
  }

  #parentComesLater({ kind, parentIds, labels }: SnapshotNode): boolean {
    const isAlone = kind === 'active' && parentIds.length === 0;
    return this.rebases && isAlone && labels.has(PARENT_CHAIN_ID);
  }

  async #rebase(node: SnapshotNode, signal: AbortSignal): Promise<Usage | undefined> {
    const { folder, rebaser } = this.#options;
    return rebaser.rebase(
      {
        staged: stagedOf(folder, node.id),
        upper: upperOf(folder, node.id),
        lowers: node.parentIds.map((id) => upperOf(folder, id)),
        owner: await this.#rootOwner(node),
        xattrPrefix: this.#mountOptions.includes(USER_XATTR) ? 'user.' : 'trusted.',
      },
      signal,
    );
  }

  async #directoriesOf(node: SnapshotNode): Promise<readonly DirectoryToMake[]> {
    const { folder } = this.#options;
    const { uid, gid } = await this.#rootOwner(node);
    return [
      { path: join(folder, node.id), mode: PRIVATE },
      { path: upperOf(folder, node.id), mode: 0o755, uid, gid },
      ...(node.kind === 'active' ? [{ path: workOf(folder, node.id), mode: 0o711 }] : []),
      ...(this.#staged.has(node.id) ? [{ path: stagedOf(folder, node.id), mode: PRIVATE }] : []),
    ];
  }

  async #rootOwner({ labels, parentIds }: SnapshotNode): Promise<Owner> {
    return idMapping(labels) ?? (await this.#ownerOf(parentIds[0]));
  }

  /** Mounts carry the mapping only where the kernel can do it; without, the owner above must suffice. */
  #mappingOf(node: SnapshotNode): IdMapping | undefined {
    return mapsIds() ? idMapping(node.labels) : undefined;
  }

  async #ownerOf(id: string | undefined): Promise<Owner> {
    if (id === undefined) return { uid: 0, gid: 0 };
    const known = this.#owners.get(id);
    if (known !== undefined) return known;
    try {
      const { uid, gid } = await lstat(upperOf(this.#options.folder, id));
      this.#owners.set(id, { uid, gid });
      return { uid, gid };
    } catch (error) {
      if (isOpError(error)) throw error;
      throw new OpError(
        'FailedPrecondition',
        `the parent's directory ${upperOf(this.#options.folder, id)} is not usable: ${messageOf(error)}; remove the parent and unpack it again`,
        { cause: error },
      );
    }
  }
}

const isIndex = (option: string): boolean => /^index(=|$)/.test(option);
