import { chmod, lstat, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { pathExists } from 'fs-extra/esm';
import { isOpError, messageOf, OpError } from '../../base/errors.ts';
import type { Labels } from '../../base/labels.ts';
import type { DirectoryToMake, FileJobs } from '../../platform/platform.ts';
import type { DriverFactory, Durability, SnapshotDriver, SnapshotNode } from '../driver.ts';
import type { Mount, Usage } from '../snapshotter.ts';
import { parseOverlayConfig, type OverlayConfig } from './config.ts';
import { idMapping, type IdMapping } from './id-mapping.ts';
import { overlayMounts, upperOf, workOf } from './mounts.ts';
import { mapsIds, probeOverlay, type OverlayProbe } from './probe.ts';

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Layers are private: setuid files in them must be out of other users' reach. */
const PRIVATE = 0o700;
const UPPERDIR_LABEL = 'containerd.io/snapshot/overlay.upperdir';

export const overlay: DriverFactory = {
  name: 'overlay',
  checkConfig: (table) => void parseOverlayConfig(table),
  capabilities: (table) => [
    ...(parseOverlayConfig(table).slowChown ? [] : ['only-remap-ids']),
    ...(mapsIds() ? ['remap-ids'] : []),
  ],
  open: async ({ root, durability, table }, { linux, jobs }) => {
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
      probe: await probeOverlay(root, linux),
    });
  },
};

interface OverlayOptions {
  readonly folder: string;
  readonly config: OverlayConfig;
  readonly durability: Durability;
  readonly jobs: FileJobs;
  readonly probe: OverlayProbe;
}

/** FOLDER/ID/fs is the layer; FOLDER/ID/work is overlay's own, there only for active snapshots. */
class OverlayDriver implements SnapshotDriver {
  readonly removesAtOnce: boolean;
  readonly #options: OverlayOptions;
  readonly #mountOptions: readonly string[];
  /** Owners of committed layers' roots, which children inherit; never changing, so read once. */
  readonly #owners = new Map<string, Owner>();

  constructor(options: OverlayOptions) {
    const { config, probe } = options;
    this.#options = options;
    this.removesAtOnce = config.syncRemove;
    this.#mountOptions = [
      ...config.mountOptions,
      ...(probe.needsUserXattr ? ['userxattr'] : []),
      ...(probe.knowsIndex && !config.mountOptions.some(isIndex) ? ['index=off'] : []),
    ];
  }

  async create(node: SnapshotNode): Promise<void> {
    if (!this.keepsDirectory(node)) {
      // A mapping that makes no sense is refused all the same.
      idMapping(node.labels);
      return;
    }
    await this.#options.jobs.makeDirectories(await this.#directoriesOf(node));
  }

  /** What is still there keeps the mode and owner that a container may have given it. */
  async repair(node: SnapshotNode): Promise<void> {
    if (!this.keepsDirectory(node)) return;
    const lost: DirectoryToMake[] = [];
    for (const directory of await this.#directoriesOf(node)) {
      if (!(await pathExists(directory.path))) lost.push(directory);
    }
    if (lost.length > 0) await this.#options.jobs.makeDirectories(lost);
  }

  repairsWhole(): boolean {
    return true;
  }

  mounts(node: SnapshotNode): readonly Mount[] {
    return overlayMounts(this.#options.folder, node, this.#mountOptions, this.#mappingOf(node));
  }

  usage(node: SnapshotNode, signal: AbortSignal): Promise<Usage> {
    return this.#options.jobs.measureTree(upperOf(this.#options.folder, node.id), signal);
  }

  async seal(node: SnapshotNode, signal: AbortSignal): Promise<Usage | undefined> {
    const { folder, jobs, durability } = this.#options;
    const upper = upperOf(folder, node.id);
    const sealed = await jobs.sealTree(upper, folder, durability === 'full', signal);
    if (sealed === undefined) return undefined;
    const { inodes, size, uid, gid } = sealed;
    this.#owners.set(node.id, { uid, gid });
    return { inodes, size };
  }

  discard(ids: readonly string[], signal: AbortSignal): Promise<void> {
    const { folder, jobs } = this.#options;
    for (const id of ids) this.#owners.delete(id);
    return jobs.removeTrees(
      ids.map((id) => join(folder, id)),
      signal,
    );
  }

  async list(): Promise<readonly string[]> {
    return (await readdir(this.#options.folder)).filter((name) => /^\d+$/.test(name));
  }

  keepsDirectory(node: SnapshotNode): boolean {
    return node.kind !== 'view' || node.parentIds.length === 0;
  }

  shownLabels(node: SnapshotNode): Labels | undefined {
    if (!this.#options.config.upperdirLabel || !this.keepsDirectory(node)) return undefined;
    return new Map([[UPPERDIR_LABEL, upperOf(this.#options.folder, node.id)]]);
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #directoriesOf(node: SnapshotNode): Promise<readonly DirectoryToMake[]> {
    const { folder } = this.#options;
    const { uid, gid } = idMapping(node.labels) ?? (await this.#ownerOf(node.parentIds[0]));
    return [
      { path: join(folder, node.id), mode: PRIVATE },
      { path: upperOf(folder, node.id), mode: 0o755, uid, gid },
      ...(node.kind === 'active' ? [{ path: workOf(folder, node.id), mode: 0o711 }] : []),
    ];
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
