import { dirname } from 'node:path';
import { fdatasync } from 'node:fs';
import { open } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { Algorithm } from '../../base/digest.ts';
import { quote } from '../../base/errors.ts';
import { fromSyncError } from '../linux/errno.ts';
import { syncfsAsync } from '../linux/files.ts';
import type {
  BlobToPlace,
  DirectoryToMake,
  FileJobs,
  PartRule,
  SealedTree,
  TreeSize,
  TreeToSeal,
} from '../platform.ts';
import { canceled, makeCancelFlag, raise, type CancelFlag } from './cancellation.ts';
import { Grouped, GroupedByName, type Outcome } from './grouped.ts';
import { IngestFiles } from './ingest-files.ts';
import { Lane, LanesByName } from './lane.ts';
import { ThreadedMountJobs } from './mounts/mount-jobs.ts';
import { packBlobs } from './pack-blobs.ts';
import { decodeError, type EncodedError, type JobMap, type JobName } from './protocol.ts';
import { ThreadedSubvolumeJobs } from './subvolumes/subvolume-jobs.ts';
import { Threads } from './threads.ts';

export interface FileJobsOptions {
  /** File that the threads run: `worker.ts` of the daemon, or its bundle. */
  readonly workerEntry: string;
  /** A thread unused for so long is ended. */
  readonly idleMs?: number;
}

const IDLE_MS = 10_000;

/** Groups share a sync, and one message to a thread; the limit bounds the memory of either. */
const SEALS_MAX = 512;
const PLACEMENTS_MAX = 256;
const DIRECTORIES_MAX = 256;
/** So many removals hold a thread for some milliseconds: others of the same lane have their turn then. */
const REMOVALS_PER_JOB = 32;

export const createFileJobs = (options: FileJobsOptions): FileJobs => new ThreadedFileJobs(options);

class ThreadedFileJobs implements FileJobs {
  readonly #threads: Threads;
  /** Apart: no request waits until a thread that is busy with removals is free, or another one has started. */
  readonly #removingThreads: Threads;
  readonly #files: IngestFiles;
  /** By the folder that a driver's snapshots share: a dead disk stops only its own. */
  readonly #copies = new LanesByName({ parallel: 2, slowMs: 1000, parallelMax: 4 });
  readonly #measures = new LanesByName({ parallel: 1, slowMs: 100, parallelMax: 4 });
  readonly #removals = new LanesByName({ parallel: 1, slowMs: 1000, parallelMax: 2 });
  /** On libuv's threads, of which others must get some. */
  readonly #syncs = new Lane({ parallel: 4, slowMs: Infinity, parallelMax: 4 });
  /** By the folder they are in. */
  readonly #directories = new GroupedByName<readonly DirectoryToMake[], void>(
    DIRECTORIES_MAX,
    async (_folder, lists) => outcomesOf(await this.#onThread('makeDirectories', lists)),
  );
  /** By file system. */
  readonly #flushedSeals = new GroupedByName<TreeToSeal, SealedTree | 'large'>(
    SEALS_MAX,
    (fileSystem, trees) => this.#sealGroup(trees, fileSystem),
  );
  readonly #unflushedSeals = new GroupedByName<TreeToSeal, SealedTree | 'large'>(
    SEALS_MAX,
    (_fileSystem, trees) => this.#sealGroup(trees, undefined),
  );
  /** On libuv's threads too: a thread of ours costs megabytes, and this one would mostly wait. */
  readonly #flushes = new GroupedByName<undefined, void>(SEALS_MAX, async (path, callers) => {
    await flushFileSystem(path);
    return callers.map((value) => ({ value }));
  });
  readonly #syncedPlacements = new Grouped<BlobToPlace, void>(PLACEMENTS_MAX, (blobs) =>
    this.#placeGroup(blobs, true),
  );
  readonly #unsyncedPlacements = new Grouped<BlobToPlace, void>(PLACEMENTS_MAX, (blobs) =>
    this.#placeGroup(blobs, false),
  );
  readonly subvolumes = new ThreadedSubvolumeJobs({
    onThread: (name, input) => this.#onThread(name, input),
    cancelable: (signal, start) => this.#runCancelable(signal, start),
    tracked: (work) => this.#track(work),
  });
  readonly mounts = new ThreadedMountJobs({
    onThread: (name, input) => this.#onThread(name, input),
    tracked: (work) => this.#track(work),
  });
  readonly #atWork = new Set<Promise<unknown>>();
  #closed = false;

  constructor(options: FileJobsOptions) {
    const entry = options.workerEntry;
    const idleMs = options.idleMs ?? IDLE_MS;
    this.#threads = new Threads({ entry, idleMs });
    this.#removingThreads = new Threads({ entry, idleMs });
    this.#files = new IngestFiles({
      entry,
      idleMs,
      sync: (fd, path) =>
        this.#track(this.#syncs.run('syncing', undefined, () => syncFile(fd, path))),
    });
  }

  makeDirectories(directories: readonly DirectoryToMake[]): Promise<void> {
    const folder = dirname(directories[0]?.path ?? '/');
    return this.#track(this.#directories.call(folder, directories));
  }

  copyTree(from: string, to: string, signal: AbortSignal): Promise<void> {
    const what = `copying ${quote(from)} to ${quote(to)}`;
    return this.#runCancelable(signal, (cancel) =>
      this.#copies.run(dirname(to), what, signal, () =>
        this.#onThread('copyTree', { from, to, cancel }),
      ),
    );
  }

  measureTree(path: string, signal: AbortSignal): Promise<TreeSize> {
    const what = `measuring ${quote(path)}`;
    // Two levels up: some drivers measure a directory inside the snapshot's own.
    return this.#runCancelable(signal, (cancel) =>
      this.#measures.run(dirname(dirname(path)), what, signal, () =>
        this.#onThread('measureTree', { path, cancel }),
      ),
    );
  }

  measureParts(
    root: string,
    part: string,
    rules: ReadonlyMap<string, PartRule>,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, number>> {
    return this.#runCancelable(signal, (cancel) =>
      this.#measures.run(root, `measuring ${quote(root)}`, signal, () =>
        this.#onThread('measureParts', { root, part, rules, cancel }),
      ),
    );
  }

  removeTrees(paths: readonly string[], signal: AbortSignal): Promise<void> {
    return this.#runCancelable(signal, (cancel) => this.#removeInParts(paths, signal, cancel));
  }

  async sealTree(
    tree: TreeToSeal,
    fileSystem: string,
    flush: boolean,
    signal: AbortSignal,
  ): Promise<SealedTree | undefined> {
    const what = `sealing ${quote(tree.path)}`;
    const groups = flush ? this.#flushedSeals : this.#unflushedSeals;
    const sealed = await giveUpOn(signal, what, this.#track(groups.call(fileSystem, tree)));
    return sealed === 'large' ? undefined : sealed;
  }

  async syncFileSystem(path: string): Promise<void> {
    await this.#track(this.#flushes.call(path, undefined));
  }

  openHashedFile(path: string, algorithms: readonly Algorithm[]) {
    return this.#track(this.#files.open(path, algorithms));
  }

  placeBlob(blob: BlobToPlace, { sync }: { readonly sync: boolean }): Promise<void> {
    const placements = sync ? this.#syncedPlacements : this.#unsyncedPlacements;
    return this.#track(placements.call(blob));
  }

  /** Resolves when all jobs have ended, which a dead disk can delay for ever: the caller sets the limit. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    while (this.#atWork.size > 0) await Promise.allSettled(this.#atWork);
    await this.#files[Symbol.asyncDispose]();
    await this.#removingThreads[Symbol.asyncDispose]();
    await this.#threads[Symbol.asyncDispose]();
  }

  /** All are tried. @throws the first failure */
  async #removeInParts(
    paths: readonly string[],
    signal: AbortSignal,
    cancel: CancelFlag,
  ): Promise<void> {
    const what = `removing ${paths.length} directories`;
    const failures: unknown[] = [];
    for (let at = 0; at < paths.length; at += REMOVALS_PER_JOB) {
      const part = paths.slice(at, at + REMOVALS_PER_JOB);
      await this.#removals
        .run(dirname(part[0] ?? '/'), what, signal, () =>
          this.#removingThreads.use((thread) => thread.run('removeTrees', { paths: part, cancel })),
        )
        .catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  }

  /**
   * Raises the flag when the signal comes. The promise settles when the thread has stopped: until then
   * it may still touch the tree.
   */
  async #runCancelable<T>(
    signal: AbortSignal,
    start: (cancel: CancelFlag) => Promise<T>,
  ): Promise<T> {
    const flag = makeCancelFlag();
    const stop = (): void => raise(flag);
    signal.addEventListener('abort', stop, { once: true });
    try {
      return await this.#track(start(flag));
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  #onThread<Name extends JobName>(
    name: Name,
    input: JobMap[Name]['in'],
    transfer?: readonly ArrayBuffer[],
  ): Promise<JobMap[Name]['out']> {
    return this.#threads.use((thread) => thread.run(name, input, transfer));
  }

  async #sealGroup(
    trees: readonly TreeToSeal[],
    fileSystem: string | undefined,
  ): Promise<readonly Outcome<SealedTree | 'large'>[]> {
    const sealed = await this.#onThread('sealTrees', { trees, fileSystem });
    return sealed.map((tree) => {
      if (tree === 'large') return { value: tree };
      return 'error' in tree ? { error: decodeError(tree.error) } : { value: tree };
    });
  }

  async #placeGroup(
    blobs: readonly BlobToPlace[],
    sync: boolean,
  ): Promise<readonly Outcome<void>[]> {
    const request = { ...packBlobs(blobs), sync };
    return outcomesOf(await this.#onThread('placeBlobs', request, [request.bytes.buffer]));
  }

  /** Closing waits for it. */
  #track<T>(work: Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(canceled('a file job after closing'));
    this.#atWork.add(work);
    const done = (): boolean => this.#atWork.delete(work);
    work.then(done, done);
    return work;
  }
}

const outcomesOf = (errors: readonly (EncodedError | undefined)[]): readonly Outcome<void>[] =>
  errors.map((error) =>
    error === undefined ? { value: undefined } : { error: decodeError(error) },
  );

const fdatasyncAsync = promisify(fdatasync);

async function syncFile(fd: number, path: string): Promise<void> {
  try {
    await fdatasyncAsync(fd);
  } catch (error) {
    throw fromSyncError(error, `syncing ${quote(path)}`);
  }
}

async function flushFileSystem(path: string): Promise<void> {
  try {
    await using directory = await open(path);
    await syncfsAsync(directory.fd);
  } catch (error) {
    throw fromSyncError(error, `flushing the file system of ${quote(path)}`);
  }
}

/** For work that others share and that goes on: only this caller's wait ends. */
function giveUpOn<T>(signal: AbortSignal, what: string, work: Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const giveUp = (): void => reject(canceled(what));
    const forget = (): void => signal.removeEventListener('abort', giveUp);
    if (signal.aborted) giveUp();
    signal.addEventListener('abort', giveUp, { once: true });
    work.then(resolve, reject).finally(forget).catch(forget);
  });
}
