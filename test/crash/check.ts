import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type { Dirent } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { background } from '../../src/base/context.ts';
import { digestOf } from '../../src/base/digest.ts';
import { collect } from '../support/collect.ts';
import type { Client } from '../support/client.ts';
import type { Daemon } from '../support/daemon.ts';
import { ownDirectory } from '../support/mounts.ts';
import { bytesOf } from '../support/random.ts';
import type {
  BlobState,
  CrashWindow,
  Files,
  IngestState,
  Item,
  Journal,
  SnapshotState,
} from './journal.ts';
import { IN_EVERY_LAYER } from './load.ts';

/** What the crash took: the process only, or the disk's volatile cache as well. */
export type Crash = 'killed' | 'power cut';

/** An ingest may keep fewer bytes than this in memory until it is committed. */
const UNWRITTEN_BYTES_MAX = 64 << 10;

/** What each item turned out to be; journal.settle takes it where the load goes on. */
export interface Found {
  readonly snapshots: ReadonlyMap<Item<SnapshotState>, SnapshotState | undefined>;
  readonly blobs: ReadonlyMap<Item<IngestState | BlobState>, IngestState | BlobState | undefined>;
}

/**
 * After a crash: what was acknowledged before is there, what was under way is either way, and nothing
 * else; all of it can be listed, read, used as a parent. Leaves the store as it was.
 * @throws AssertionError naming what is wrong
 */
export async function check(
  daemon: Daemon,
  journal: Journal,
  window: CrashWindow,
  crash: Crash,
): Promise<Found> {
  const checker = new Checker(daemon, window, crash);
  const snapshots = await checker.snapshots(journal.snapshots);
  const blobs = await checker.blobs(journal.blobs);
  return { snapshots, blobs };
}

/** The items are what they turned out to be, for the load to go on. */
export function settle(journal: Journal, found: Found): void {
  for (const [item, state] of found.snapshots) item.settle(state);
  for (const [item, state] of found.blobs) item.settle(state);
  journal.prune();
}

class Checker {
  readonly #daemon: Daemon;
  readonly #client: Client;
  readonly #window: CrashWindow;
  readonly #crash: Crash;

  constructor(daemon: Daemon, window: CrashWindow, crash: Crash) {
    this.#daemon = daemon;
    this.#client = daemon.client;
    this.#window = window;
    this.#crash = crash;
  }

  async snapshots(
    items: Iterable<Item<SnapshotState>>,
  ): Promise<Map<Item<SnapshotState>, SnapshotState | undefined>> {
    const { snapshotter } = this.#client;
    const listed = await collect(snapshotter.walk(background, []));
    const infos = new Map(listed.map((info) => [info.name, info]));
    assert.equal(infos.size, listed.length, 'a name is listed twice');
    const found = new Map<Item<SnapshotState>, SnapshotState | undefined>();
    const directories: string[] = [];
    let committed = 0;
    for (const item of items) {
      const possible = item.possible(this.#window);
      const names = new Set(possible.flatMap((state) => (state ? [state.name] : [])));
      const there = [...names].flatMap((name) => infos.get(name) ?? []);
      assert.ok(there.length < 2, `is there under its key and its name: ${describe(there)}`);
      const info = there[0];
      const state = possible.findLast((state) =>
        state && info
          ? state.name === info.name &&
            state.kind === info.kind &&
            state.parent === info.parent &&
            describe(state.labels) === describe(info.labels)
          : state === info,
      );
      const seen = `${info ? describe(info) : 'nothing'} where the journal has ${describe(possible)}`;
      assert.ok(state !== undefined || (!info && possible.includes(undefined)), `found ${seen}`);
      found.set(item, state);
      if (state) infos.delete(state.name);
      if (state) directories.push(...(await this.#snapshot(state)));
      if (state?.kind === 'committed') committed++;
    }
    assert.equal(infos.size, 0, `nobody made these: ${describe([...infos.values()])}`);
    await snapshotter.cleanup(background);
    if (this.#daemon.options.snapshotter === 'btrfs') {
      await this.#oneSubvolumeEach(new Set(directories), committed);
    } else await this.#noOrphans(new Set(directories));
    return found;
  }

  /** One snapshot's files, usage and use. @returns the directories it lies in */
  async #snapshot(state: SnapshotState): Promise<readonly string[]> {
    const { snapshotter } = this.#client;
    if (state.kind !== 'committed') {
      const mounts = await snapshotter.mounts(background, state.name);
      const directory = ownDirectory(mounts);
      if (state.kind === 'view') await readdir(directory);
      else if (this.#crash === 'killed') await this.#files(directory, state);
      else await this.#copiedFiles(directory, state);
      return [directory];
    }
    const usage = await snapshotter.usage(background, state.name);
    // On btrfs the root directory is the parent's as long as nothing is written.
    const unchanged = this.#daemon.options.snapshotter === 'btrfs' && state.own.size === 0;
    assert.ok(usage.inodes > 0 || unchanged, `usage of ${state.name}: ${describe(usage)}`);
    if (state.usage) assert.deepEqual(usage, state.usage, `usage of ${state.name}`);
    const view = `view of ${state.name}`;
    const directory = ownDirectory(await snapshotter.view(background, view, state.name, new Map()));
    await this.#files(directory, state);
    await snapshotter.remove(background, view);
    const isOwn = this.#daemon.options.snapshotter !== 'btrfs';
    const child = `child of ${state.name}`;
    const made = await snapshotter.prepare(background, child, state.name, new Map());
    await readdir(ownDirectory(made));
    await snapshotter.remove(background, child);
    return isOwn ? [directory] : [];
  }

  async #files(directory: string, state: SnapshotState): Promise<void> {
    const copies = this.#daemon.options.snapshotter !== 'overlayfs';
    const expected: Files = copies ? new Map([...state.inherited, ...state.own]) : state.own;
    const there = await filesBelow(directory);
    const what = `files of ${state.kind} ${state.name} in ${directory}`;
    assert.deepEqual(there.toSorted(), [...expected.keys()].toSorted(), what);
    for (const [name, content] of expected) {
      const bytes = await readFile(join(directory, name));
      const good = bytes.equals(bytesOf(content.seed, content.size));
      assert.ok(good, `${name} among ${what}: ${bytes.length} bytes of ${content.size} or others`);
    }
  }

  /** A power cut may take what was written since Prepare, but not what Prepare had copied. */
  async #copiedFiles(directory: string, { name, inherited }: SnapshotState): Promise<void> {
    await readdir(directory);
    if (this.#daemon.options.snapshotter === 'overlayfs') return;
    for (const [path, content] of inherited) {
      if (path === IN_EVERY_LAYER) continue;
      const bytes = await readFile(join(directory, path));
      const good = bytes.equals(bytesOf(content.seed, content.size));
      assert.ok(good, `${path} of active ${name} in ${directory} is not the parent's`);
    }
  }

  /** No directory below snapshots/ holds anything that no snapshot leads to. */
  async #noOrphans(directories: ReadonlySet<string>): Promise<void> {
    const prefixes = [...directories].map((directory) => `${directory}/`);
    const orphans = (await storedFiles(this.#daemon.options.root, /^snapshots$/)).filter(
      (file) => !prefixes.some((prefix) => file.startsWith(prefix)),
    );
    assert.deepEqual(orphans, [], 'files of no snapshot');
  }

  /** Every subvolume is that of an active snapshot or a view, or the layer of a committed one. */
  async #oneSubvolumeEach(directories: ReadonlySet<string>, committed: number): Promise<void> {
    const others = (await subvolumesBelow(this.#daemon.options.root)).filter(
      (path) => !directories.has(path),
    );
    assert.deepEqual(
      others.filter((path) => !path.endsWith('/layer')),
      [],
      'subvolumes of no snapshot',
    );
    assert.equal(others.length, committed, `committed snapshots have ${describe(others)}`);
  }

  async blobs(
    items: Iterable<Item<IngestState | BlobState>>,
  ): Promise<Map<Item<IngestState | BlobState>, IngestState | BlobState | undefined>> {
    const { content } = this.#client;
    // Answered when start-up has compared records and disk.
    const statuses = await content.statuses(background, []);
    const ingests = new Map(statuses.map((status) => [status.ref, status]));
    const listed = await collect(content.walk(background, []));
    const blobs = new Map(listed.map((info) => [String(info.digest), info]));
    await this.#wholeBlobs(new Set(blobs.keys()), ingests.size);
    const found = new Map<Item<IngestState | BlobState>, IngestState | BlobState | undefined>();
    for (const item of items) {
      const possible = item.possible(this.#window);
      const seen = await this.#blobItem(possible, blobs, ingests);
      found.set(item, seen);
      if (seen?.kind === 'blob') blobs.delete(seen.digest);
      if (seen?.kind === 'ingest') ingests.delete(seen.ref);
    }
    assert.deepEqual([...blobs.keys()], [], 'blobs that nobody made');
    assert.deepEqual(
      [...ingests.keys()],
      [],
      'ingests that nobody began, or that are blobs by now',
    );
    return found;
  }

  async #blobItem(
    possible: readonly (IngestState | BlobState | undefined)[],
    blobs: ReadonlyMap<string, { size: number; labels: ReadonlyMap<string, string> }>,
    ingests: ReadonlyMap<string, { offset: number }>,
  ): Promise<IngestState | BlobState | undefined> {
    const unmatched: unknown[] = [];
    for (const state of possible.toReversed()) {
      if (state?.kind === 'blob') {
        const info = blobs.get(state.digest);
        if (!info) continue;
        if (describe(info.labels) !== describe(state.labels)) {
          unmatched.push(info);
          continue;
        }
        assert.equal(info.size, state.content.size);
        return state;
      }
      if (state?.kind === 'ingest') {
        const status = ingests.get(state.ref);
        if (!status) continue;
        const all = possible.flatMap((other) => (other?.kind === 'ingest' ? [other.held] : []));
        const [least, most] = [Math.min(...all), Math.max(...all)];
        const promised = this.#crash === 'power cut' || least <= UNWRITTEN_BYTES_MAX ? 0 : least;
        const { offset } = status;
        assert.ok(
          offset >= promised && offset <= most,
          `${state.ref} holds ${offset} bytes, of ${least} acknowledged and ${most} sent`,
        );
        await this.#prefix({ ...state, held: offset });
        return { ...state, held: offset };
      }
    }
    assert.deepEqual(unmatched, [], `a blob with other labels than ${describe(possible)}`);
    const lossy = possible.some(
      (state) =>
        state === undefined ||
        (state.kind === 'ingest' &&
          (this.#crash === 'power cut' || state.held <= UNWRITTEN_BYTES_MAX)),
    );
    assert.ok(lossy, `found nothing where the journal has ${describe(possible)}`);
    return undefined;
  }

  /**
   * The bytes an ingest holds are the first ones of its content. After a power cut they need not be:
   * a file system may keep the size of bytes that never reached the disk, and no Commit takes them
   * (invariant 9 of docs/durability.md).
   */
  async #prefix(state: IngestState): Promise<void> {
    if (this.#crash === 'power cut') return;
    const bytes = bytesOf(state.content.seed, state.content.size).subarray(0, state.held);
    const expected = digestOf('sha256', createHash('sha256').update(bytes).digest('hex'));
    const writer = await this.#client.content.writer(background, state.ref, {});
    assert.equal(writer.status().digest, expected, `first ${state.held} bytes of ${state.ref}`);
    await writer[Symbol.asyncDispose]();
  }

  /** Every file below blobs/ is listed, whole and what its name says; so is every listed blob when read. */
  async #wholeBlobs(digests: ReadonlySet<string>, ingests: number): Promise<void> {
    const { root } = this.#daemon.options;
    const files = await storedFiles(root, /^blobs$/);
    for (const file of files) {
      const hex = createHash('sha256')
        .update(await readFile(file))
        .digest('hex');
      assert.equal(relative(join(file, '..'), file), hex, `${file} is not what its name says`);
      assert.ok(digests.has(`sha256:${hex}`), `${file} is not listed`);
    }
    for (const digest of digests) {
      const hash = createHash('sha256');
      const read = this.#client.content.read(background, digestOf('sha256', digest.slice(7)), 0, 0);
      for await (const chunk of read) hash.update(chunk);
      assert.equal(`sha256:${hash.digest('hex')}`, digest);
    }
    const held = await storedFiles(root, /^ingests?$/);
    const folders = new Set(held.map((file) => file.split(/\/ingests?\//)[1]?.split('/')[0]));
    assert.ok(folders.size <= ingests, `${ingests} ingests, but ${describe([...folders])}`);
  }
}

/** Removes all there is and ends the daemon: nothing is left on disk. */
export async function dismantle(daemon: Daemon): Promise<void> {
  const { snapshotter, content } = daemon.client;
  for (let left = Infinity; left > 0;) {
    const infos = await collect(snapshotter.walk(background, []));
    assert.ok(infos.length < left, `these can't be removed: ${describe(infos)}`);
    left = infos.length;
    const parents = new Set(infos.map((info) => info.parent));
    const leaves = infos.filter((info) => !parents.has(info.name));
    await Promise.all(leaves.map((info) => snapshotter.remove(background, info.name)));
  }
  for await (const info of content.walk(background, [])) {
    await content.delete(background, info.digest);
  }
  for (const status of await content.statuses(background, [])) {
    await content.abort(background, status.ref);
  }
  await snapshotter.cleanup(background);
  assert.deepEqual(await subvolumesBelow(daemon.options.root), [], 'subvolumes are left');
  // Blobs and ingests go behind the answer, and the daemon ends when they are gone.
  await daemon.stop('SIGTERM');
  const left = await storedFiles(daemon.options.root, /^(snapshots|blobs|ingests?|trash)$/);
  assert.deepEqual(left, [], 'left after everything was removed');
}

/** The subvolumes of a btrfs driver's snapshots. */
async function subvolumesBelow(root: string): Promise<readonly string[]> {
  const snapshots = join(root, 'snapshotters/ballast-btrfs/snapshots');
  const found = await Promise.all(
    (await entriesOf(snapshots)).map(async ({ name }) =>
      (await entriesOf(join(snapshots, name))).map((entry) => join(snapshots, name, entry.name)),
    ),
  );
  return found.flat();
}

/** All files that lie somewhere below a folder of such a name. */
async function storedFiles(root: string, folder: RegExp): Promise<readonly string[]> {
  const entries = await entriesOf(root);
  const below = await Promise.all(
    entries
      .filter((entry) => entry.isDirectory())
      .map(async (entry) => {
        const path = join(root, entry.name);
        if (!folder.test(entry.name)) return storedFiles(path, folder);
        return (await filesBelow(path)).map((file) => join(path, file));
      }),
  );
  return below.flat();
}

/** Paths of all that is no directory, relative. What vanishes meanwhile is not there. */
async function filesBelow(directory: string, prefix = ''): Promise<string[]> {
  const entries = await entriesOf(join(directory, prefix));
  const below = await Promise.all(
    entries.map(async (entry) => {
      const path = join(prefix, entry.name);
      return entry.isDirectory() ? filesBelow(directory, path) : [path];
    }),
  );
  return below.flat();
}

async function entriesOf(directory: string): Promise<readonly Dirent[]> {
  try {
    return await readdir(directory, { withFileTypes: true });
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
}

/** One line for a message; Maps are shown. */
export function describe(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) => {
    if (inner instanceof Map) return Object.fromEntries(inner);
    if (typeof inner === 'bigint') return String(inner);
    return inner === undefined ? 'nothing' : inner;
  });
}
