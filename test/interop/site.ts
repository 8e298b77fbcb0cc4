import { randomBytes } from 'node:crypto';
import { lstat, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { loopFileSystem, type MountedImage } from '../support/loop-fs.ts';
import { run } from '../support/run.ts';
import { repository } from '../support/temporary.ts';
import { Containerd, mountsBelow, type Release } from './containerd.ts';
import { ListeningSocket } from './listening-socket.ts';
import { Program } from './program.ts';

export const SNAPSHOTTERS = ['ballast-overlay', 'ballast-native', 'ballast-btrfs'] as const;
export type SnapshotterName = (typeof SNAPSHOTTERS)[number];

const ballastCommand = join(repository, 'bin/ballast');

/** What lies in ballast's root, as far as snapshots and blobs put it there. */
export interface Stored {
  readonly blobs: readonly string[];
  readonly ingests: readonly string[];
  readonly snapshots: readonly string[];
  /** Everything outside of the metadata that takes room, folders aside. */
  readonly files: readonly string[];
}

/**
 * One ballast and one containerd that has it as snapshotters and content store, all on one file system in
 * memory that goes when the test ends, however it ends.
 */
export class Site {
  readonly folder: string;
  readonly namespace: string;
  readonly root: string;
  readonly socket: string;
  /** A file system of its own for the root of `ballast-btrfs`. */
  readonly btrfs: MountedImage;
  #ballast: Program | undefined;
  #containerd: Containerd | undefined;
  #listener: ListeningSocket | undefined;

  private constructor(folder: string, btrfs: MountedImage) {
    this.folder = folder;
    this.btrfs = btrfs;
    this.namespace = `interop-${randomBytes(6).toString('hex')}`;
    this.root = join(folder, 'ballast');
    this.socket = join(folder, 'ballast.sock');
  }

  /** A ballast without a containerd yet. With `inherited`, it gets its socket as systemd would hand it over. */
  static async create(options: { readonly inherited?: boolean } = {}): Promise<Site> {
    const site = new Site((await disk('ext4')).path, await disk('btrfs'));
    onTestFinished(() => site.#remove());
    if (options.inherited) site.#listener = ListeningSocket.bind(site.socket);
    await writeFile(site.#config, ballastConfig(site));
    await site.startBallast();
    return site;
  }

  /** A ballast, and a containerd of the release that uses it by the config that ballast prints. */
  static async withContainerd(release: Release): Promise<Site> {
    const site = await Site.create();
    await site.startContainerd(release);
    return site;
  }

  get containerd(): Containerd {
    if (!this.#containerd) throw new Error('the test started no containerd');
    return this.#containerd;
  }

  get ballast(): Program {
    if (!this.#ballast) throw new Error('the test started no ballast');
    return this.#ballast;
  }

  async startBallast(): Promise<void> {
    const serve = ['serve', '--config', this.#config];
    this.#ballast = this.#listener
      ? this.#listener.start(ballastCommand, serve)
      : new Program(ballastCommand, serve);
    await this.#ballast.says(/"serving"/);
  }

  /** @param kubernetes makes config of Kubernetes' side, which is off without it, from what ballast prints */
  async startContainerd(release: Release, kubernetes?: (printed: string) => string): Promise<void> {
    // 1.6 knows no differs of others.
    const plugins = release.name === '1.6' ? ['--content'] : ['--content', '--differ'];
    const print = ['config', 'print', 'containerd', '--version', release.name, ...plugins];
    const dropIn = await run(ballastCommand, [...print, '--config', this.#config]);
    const { folder, namespace } = this;
    this.#containerd = await Containerd.start({
      release,
      folder,
      namespace: kubernetes === undefined ? namespace : 'k8s.io',
      dropIn: [dropIn, kubernetes?.(dropIn)].join('\n'),
      kubernetes: kubernetes !== undefined,
    });
  }

  /** What ballast's root holds at this moment. */
  async stored(): Promise<Stored> {
    const content = await filesBelow(join(this.root, 'content'));
    const snapshots = new Map([
      ...(await filesBelow(join(this.root, 'snapshotters'))),
      ...(await filesBelow(this.btrfs.path)),
    ]);
    const named = (pattern: RegExp, paths: Iterable<string>): readonly string[] => [
      ...new Set([...paths].flatMap((path) => pattern.exec(path)?.[0] ?? [])),
    ];
    return {
      blobs: named(/(?<=\/content\/blobs\/.+\/)[^/]+$/, content.keys()),
      ingests: named(/(?<=\/content\/ingests\/)[^/]+/, content.keys()),
      snapshots: named(/[^/]+\/snapshots\/[^/]+/, snapshots.keys()),
      files: [...content, ...snapshots].flatMap(([path, size]) => (size === 0 ? [] : [path])),
    };
  }

  /** Fails when a mount below the folder is left, here or where containerd lives. */
  async expectNoMounts(): Promise<void> {
    expect(await mountsBelow(this.folder)).toEqual([]);
    expect(await this.containerd.mountsBelow(this.folder)).toEqual([]);
  }

  get #config(): string {
    return join(this.folder, 'ballast-config.toml');
  }

  async #remove(): Promise<void> {
    await this.#containerd?.stop();
    await this.#ballast?.stop('SIGKILL');
    this.#listener?.close();
    for (const point of [...(await mountsBelow(this.folder))].toReversed()) {
      await run('umount', ['--lazy', point]);
    }
    // Containers that were killed rather than removed leave their cgroup behind, one per hierarchy.
    const cgroups = ['/sys/fs/cgroup', '-depth', '-type', 'd', '-path', `*/${this.namespace}*`];
    await run('find', [...cgroups, '-exec', 'rmdir', '{}', '+']).catch(() => {});
  }
}

/** Goes with the test, after all that is on it. */
async function disk(type: 'ext4' | 'btrfs'): Promise<MountedImage> {
  const made = await loopFileSystem(type, 4096);
  onTestFinished(() => made[Symbol.asyncDispose]());
  return made;
}

const ballastConfig = ({ folder, root, socket, btrfs }: Site): string => `
root = "${root}"
containerd_address = "${folder}/containerd.sock"
[plugin]
socket = "${socket}"
[snapshotter.ballast-overlay]
driver = "overlay"
[snapshotter.ballast-native]
driver = "native"
[snapshotter.ballast-btrfs]
driver = "btrfs"
root = "${btrfs.path}/ballast"
`;

/** Every path below a folder with the bytes it takes on disk; what goes away meanwhile is left out. */
async function filesBelow(folder: string): Promise<ReadonlyMap<string, number>> {
  const sizes = new Map<string, number>();
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name);
    const found = await lstat(path).catch(() => undefined);
    if (found) sizes.set(path, found.isDirectory() ? 0 : found.blocks * 512);
  }
  return sizes;
}
