import { chmod, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { pathExists } from 'fs-extra/esm';
import { background } from '../../base/context.ts';
import { messageOf, OpError } from '../../base/errors.ts';
import type { FileJobs } from '../../platform/platform.ts';
import type {
  DriverFactory,
  Durability,
  Sealed,
  SnapshotDriver,
  SnapshotNode,
  SnapshotPlaces,
} from '../driver.ts';
import type { Mount, Usage } from '../snapshotter.ts';
import { checkNativeConfig } from './config.ts';

/** Snapshots are private: setuid files in them must be out of other users' reach. */
const PRIVATE = 0o700;
const SNAPSHOT_ROOT = 0o755;

export const native: DriverFactory = {
  name: 'native',
  checkConfig: checkNativeConfig,
  capabilities: () => [],
  open: async ({ root, durability, table }, { jobs }) => {
    checkNativeConfig(table);
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
        { cause: error },
      );
    }
    return new NativeDriver({ folder, durability, jobs });
  },
};

interface NativeOptions {
  readonly folder: string;
  readonly durability: Durability;
  readonly jobs: FileJobs;
}

/** FOLDER/ID is the whole of a snapshot, its parents' files included. Works on every file system. */
class NativeDriver implements SnapshotDriver {
  readonly #folder: string;
  readonly #durability: Durability;
  readonly #jobs: FileJobs;

  constructor({ folder, durability, jobs }: NativeOptions) {
    this.#folder = folder;
    this.#durability = durability;
    this.#jobs = jobs;
  }

  async create(node: SnapshotNode): Promise<void> {
    if (!this.keepsDirectory(node)) return;
    const path = this.#pathOf(node.id);
    await this.#jobs.makeDirectories([{ path, mode: SNAPSHOT_ROOT }]);
    const [parent] = node.parentIds;
    if (parent === undefined) return;
    await this.#jobs.copyTree(this.#pathOf(parent), path, background.signal);
    // A record of this snapshot must never be on disk before its files: half a copy looks like a whole one.
    await this.#jobs.syncFileSystem(this.#folder);
  }

  async repair(node: SnapshotNode): Promise<void> {
    if (!this.keepsDirectory(node) || (await pathExists(this.#pathOf(node.id)))) return;
    await this.create(node);
  }

  /** Half a copy of a parent cannot be told from a whole one. */
  repairsWhole(node: SnapshotNode): boolean {
    return node.parentIds.length === 0;
  }

  /** Option for option what containerd's native snapshotter answers (CONTRACT section 4). */
  mounts(node: SnapshotNode): readonly Mount[] {
    const [parent] = node.parentIds;
    const shown = this.keepsDirectory(node) || parent === undefined ? node.id : parent;
    const mode = node.kind === 'view' ? 'ro' : 'rw';
    return [{ type: 'bind', source: this.#pathOf(shown), options: ['rbind', mode] }];
  }

  async usage(node: SnapshotNode, signal: AbortSignal): Promise<Usage> {
    const { inodes, size } = await this.#jobs.measureTree(this.#pathOf(node.id), signal);
    return { inodes, size };
  }

  async seal(node: SnapshotNode, counted: Usage | undefined, signal: AbortSignal): Promise<Sealed> {
    const tree = { path: this.#pathOf(node.id), counted };
    const flush = this.#durability === 'full';
    const sealed = await this.#jobs.sealTree(tree, this.#folder, flush, signal);
    if (sealed === undefined) return { usage: undefined, isToBeChecked: false };
    const { inodes, size, isCounted } = sealed;
    return { usage: { inodes, size }, isToBeChecked: isCounted };
  }

  discard(ids: readonly string[], signal: AbortSignal): Promise<void> {
    return this.#jobs.removeTrees(
      ids.map((id) => this.#pathOf(id)),
      signal,
    );
  }

  async list(): Promise<readonly string[]> {
    return (await readdir(this.#folder)).filter((name) => /^\d+$/.test(name));
  }

  placesOf({ id, kind }: SnapshotNode): SnapshotPlaces {
    const directory = this.#pathOf(id);
    const measured = kind === 'view' ? [] : [directory];
    return { directory, measured, tree: directory, work: undefined, lowers: [] };
  }

  /** A view of a parent is the parent's own directory. */
  keepsDirectory(node: SnapshotNode): boolean {
    return node.kind !== 'view' || node.parentIds.length === 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #pathOf(id: string): string {
    return join(this.#folder, id);
  }
}
