import { join } from 'node:path';
import { background } from '../../src/base/context.ts';
import { isOpError } from '../../src/base/errors.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import type { CompareOptions, Descriptor } from '../../src/diff/diff.ts';
import type { Mount } from '../../src/snapshotters/snapshotter.ts';
import { Daemon, type DriverName } from '../support/daemon.ts';
import { fileSystemFor, loopFileSystem } from '../support/loop-fs.ts';
import { performMounts } from '../support/mounts.ts';
import { run } from '../support/run.ts';
import { shared } from '../support/slow-disk.ts';

export const PLAIN = 'application/vnd.oci.image.layer.v1.tar';
export const GZIP = 'application/vnd.oci.image.layer.v1.tar+gzip';
export const ZSTD = 'application/vnd.oci.image.layer.v1.tar+zstd';

export const DEFAULTS: CompareOptions = {
  mediaType: '',
  ref: '',
  labels: NO_LABELS,
  sourceDateEpoch: undefined,
};

/** A daemon with one driver, and snapshots whose names nobody has to think of. */
export class Site implements AsyncDisposable {
  readonly daemon: Daemon;
  readonly #parts: AsyncDisposableStack;
  #keys = 0;

  private constructor(daemon: Daemon, parts: AsyncDisposableStack) {
    this.daemon = daemon;
    this.#parts = parts;
  }

  static async start(driver: DriverName): Promise<Site> {
    await using parts = new AsyncDisposableStack();
    // Layers make paths too long for whoever clears up a folder: here they go with their file system.
    const root = parts.use(await loopFileSystem(fileSystemFor(driver), 4096));
    const daemon = parts.use(await Daemon.start({ root: root.path, snapshotter: driver }));
    return new Site(daemon, parts.move());
  }

  get #client() {
    return this.daemon.client;
  }

  async prepare(parent: string): Promise<{ key: string; mounts: readonly Mount[] }> {
    const key = `key ${this.#keys++}`;
    const mounts = await this.#client.snapshotter.prepare(background, key, parent, NO_LABELS);
    return { key, mounts };
  }

  async view(parent: string): Promise<readonly Mount[]> {
    return this.#client.snapshotter.view(background, `key ${this.#keys++}`, parent, NO_LABELS);
  }

  async commit(key: string): Promise<string> {
    const name = `${key}, committed`;
    await this.#client.snapshotter.commit(background, name, key, NO_LABELS, '');
    return name;
  }

  /** A committed snapshot with what `change` does to the tree of its parent. */
  async layer(parent: string, change: (root: string) => Promise<void>): Promise<string> {
    const { key, mounts } = await this.prepare(parent);
    await inside(mounts, change);
    return this.commit(key);
  }

  /** A committed snapshot with layers applied to the tree of its parent. */
  async applied(parent: string, ...layers: readonly Descriptor[]): Promise<string> {
    let name = parent;
    for (const layer of layers) {
      const { key, mounts } = await this.prepare(name);
      await this.#client.applier.apply(background, layer, mounts);
      name = await this.commit(key);
    }
    return name;
  }

  compare(
    older: readonly Mount[],
    newer: readonly Mount[],
    options: Partial<CompareOptions> = {},
  ): Promise<Descriptor> {
    return this.#client.comparer.compare(background, older, newer, { ...DEFAULTS, ...options });
  }

  /** Puts the bytes into the content store, where they may be already. */
  async store(layer: Descriptor, bytes: Uint8Array): Promise<void> {
    try {
      await using writer = await this.#client.content.writer(background, layer.digest, {});
      await writer.write(0, bytes);
      await writer.commit(NO_LABELS);
    } catch (error) {
      if (!isOpError(error, 'AlreadyExists')) throw error;
    }
  }

  async bytesOf({ digest }: Descriptor): Promise<Buffer> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.#client.content.read(background, digest, 0, 0)) {
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.disposeAsync();
  }
}

/** Mounts, as a client does. */
export async function inside<T>(
  mounts: readonly Mount[],
  action: (root: string) => Promise<T>,
): Promise<T> {
  await using mounted = await performMounts(mounts);
  return await action(mounted.path);
}

/** How the trees of two snapshots differ, by the folder's own program; empty when they do not. */
export async function differences(a: readonly Mount[], b: readonly Mount[]): Promise<string> {
  await using one = await performMounts(a);
  await using other = await performMounts(b);
  const program = join(shared, 'images/tree.py');
  // It ends with 1 where they differ.
  const script = 'python3 "$@"; test $? -le 1';
  return await run('sh', ['-c', script, '', program, '--diff', one.path, other.path]);
}
