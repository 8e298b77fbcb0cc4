import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { messageOf, OpError, quote } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { ContentStore } from '../content/content.ts';
import { LocalContentStore } from '../content/local-store.ts';
import { UnsyncedBlobs } from '../content/recover.ts';
import { ThreadedApplier } from '../diff/apply/threaded-applier.ts';
import { ThreadedComparer } from '../diff/compare/threaded-comparer.ts';
import type { Applier, Comparer } from '../diff/diff.ts';
import type { Disk } from '../disk/disk.ts';
import { Ledger, type SnapshotterLedger } from '../disk/ledger.ts';
import { LocalDisk } from '../disk/local-disk.ts';
import { standaloneNames } from '../disk/names.ts';
import type { Gc } from '../gc/gc.ts';
import type { Graph } from '../gc/mark.ts';
import { JournaledStore, metadataPaths } from '../metadata/journaled-store.ts';
import type { MetadataStore } from '../metadata/metadata.ts';
import { createFileJobs } from '../platform/jobs/file-jobs.ts';
import type { FileJobs } from '../platform/platform.ts';
import { SystemClock } from '../platform/linux/clock.ts';
import { createLinux } from '../platform/linux/linux.ts';
import type { Accounts, DriverDependencies, DriverFactory } from '../snapshotters/driver.ts';
import { drivers } from '../snapshotters/drivers.ts';
import type { Snapshotter } from '../snapshotters/snapshotter.ts';
import { SnapshotTree } from '../snapshotters/tree.ts';
import { TreeSnapshotter } from '../snapshotters/tree-snapshotter.ts';
import type { DaemonConfig, SnapshotterConfig } from './config.ts';
import { layerBlobs } from './layer-blobs.ts';
import { containerdGc } from './containerd-gc.ts';
import { containerdNames } from './containerd-names.ts';
import { openNamespaced, type Namespaced, type Nouns } from './namespaced.ts';
import { claimSnapshotterRoot, markRoot, openRoot } from './root.ts';

/** A snapshotter of the config: open, or the reason why it is not. */
export interface SnapshotterInstance {
  readonly config: SnapshotterConfig;
  readonly snapshotter: Snapshotter | undefined;
  readonly capabilities: readonly string[];
  readonly error: OpError | undefined;
}

/** Everything the daemon is made of, below its sockets. */
export interface Stores extends AsyncDisposable {
  /** Stable over restarts: it is kept in the root. */
  readonly uuid: string;
  readonly content: ContentStore;
  readonly contentRoot: string;
  readonly applier: Applier;
  readonly comparer: Comparer;
  readonly snapshotters: readonly SnapshotterInstance[];
  /** Of a standalone socket, where content and snapshotters are seen from a request's namespace. */
  readonly nouns: Nouns | undefined;
  readonly gc: Gc;
  readonly disk: Disk;
  /**
   * The snapshotter that a request names.
   * @throws OpError InvalidArgument unknown name; FailedPrecondition configured but not available
   */
  snapshotter(name: string): Snapshotter;
  /** Resolves when start-up's comparison of records and disk is done everywhere. */
  readonly recovered: Promise<void>;
}

/** The entry files of threads. */
export interface WorkerPaths {
  /** For file work. */
  readonly files: string;
  /** For unpacking layers. */
  readonly layers: string;
}

export interface ComposeDependencies {
  readonly log: Log;
  readonly workers: WorkerPaths;
  /** Nothing may be acknowledged any more: the daemon must end at once. */
  readonly onFatal: (error: Error) => void;
}

/**
 * Builds every part, in the order in which they need each other; disposing takes them down in reverse.
 * @throws OpError with one line for the operator
 */
export async function compose(
  config: DaemonConfig,
  { log, workers, onFatal }: ComposeDependencies,
): Promise<Stores> {
  await using undo = new AsyncDisposableStack();
  const warn = (fields: Record<string, unknown>, message: string): void =>
    log.warn(fields, message);
  const clock = new SystemClock();
  const linux = createLinux();

  const root = await openRoot(config.root, config.standalone ? 'standalone' : 'plugin');
  const jobs = undo.use(createFileJobs({ workerEntry: workers.files }));
  const contentRoot = join(config.root, 'content');
  const metadata = undo.use(
    await JournaledStore.open({
      ...metadataPaths(config.root),
      used: root.used,
      bytes: new UnsyncedBlobs(contentRoot, jobs),
      onFatal,
    }),
  );
  await markRoot(config.root, root);
  const content = undo.use(
    await LocalContentStore.open(contentRoot, { metadata, jobs, clock, warn }),
  );

  const dependencies = { linux, jobs, log, warn, metadata, clock };
  const namespaced =
    config.standalone &&
    (await openNamespaced(content, { ...config, ...config.standalone }, dependencies));
  const { limits, verify } = config.layers;
  const { containerdAddress } = config;
  const blobs = undo.use(
    namespaced?.blobs ?? layerBlobs(content, { containerdAddress, verify, clock }),
  );
  const workerEntry = workers.layers;
  const applier = undo.use(new ThreadedApplier({ workerEntry, limits, blobs }));
  const comparer = undo.use(new ThreadedComparer({ workerEntry, blobs }));

  const { accounts } = applier;
  const forDrivers = { ...dependencies, rebaser: applier, accounts };
  const opened = await openSnapshotters(config, root.uuid, namespaced, forDrivers);
  undo.use(opened);
  const { instances: snapshotters, ledgers } = opened;

  const recovered = Promise.all([
    content.recovered,
    opened.recovered,
    ...(namespaced ? [namespaced.recovered] : []),
  ]).then(() => undefined);
  if (namespaced) {
    // Taken down first: a run under way ends before the stores close.
    undo.use(namespaced);
    const missing = await missingOf(snapshotters, metadata);
    recovered.then(() => namespaced.startCollecting(missing)).catch(() => undefined);
  }
  const parts = undo.move();
  return {
    uuid: root.uuid,
    content: namespaced?.content ?? content,
    contentRoot,
    applier,
    comparer,
    snapshotters,
    nouns: namespaced?.nouns,
    gc: namespaced?.gc ?? containerdGc(config.containerdAddress, clock),
    disk: diskOf(config, { content, ledgers, jobs, clock, graph: namespaced?.graph, recovered }),
    snapshotter: resolver(snapshotters, config.anyName),
    recovered,
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

interface DiskParts {
  readonly content: LocalContentStore;
  readonly ledgers: readonly SnapshotterLedger[];
  readonly jobs: FileJobs;
  readonly clock: Clock;
  /** Of a standalone root. */
  readonly graph: Graph | undefined;
  readonly recovered: Promise<void>;
}

function diskOf({ root, containerdAddress }: DaemonConfig, parts: DiskParts): Disk {
  const { content, ledgers: snapshotters, jobs, clock, graph, recovered } = parts;
  const metadataFiles = Object.values(metadataPaths(root));
  return new LocalDisk({
    ledger: new Ledger({ root, metadataPaths: metadataFiles, content, snapshotters, jobs }),
    names:
      graph === undefined
        ? containerdNames(containerdAddress, { content, snapshotters })
        : standaloneNames(graph),
    clock,
    recovered,
  });
}

/** Snapshotters that have records, and are not in the config or could not be opened. */
const missingOf = (
  instances: readonly SnapshotterInstance[],
  metadata: MetadataStore,
): Promise<readonly string[]> => {
  const open = instances.filter(({ snapshotter }) => snapshotter !== undefined);
  return SnapshotTree.instancesBut(
    metadata,
    open.map(({ config }) => config.name),
  );
};

interface SnapshotterDependencies extends DriverDependencies {
  readonly accounts: Accounts;
  readonly metadata: MetadataStore;
  readonly clock: Clock;
}

interface Snapshotters extends AsyncDisposable {
  readonly instances: readonly SnapshotterInstance[];
  /** Those that are open, below their namespaces. */
  readonly ledgers: readonly SnapshotterLedger[];
  readonly recovered: Promise<void>;
}

async function openSnapshotters(
  config: DaemonConfig,
  uuid: string,
  namespaced: Namespaced | undefined,
  dependencies: SnapshotterDependencies & { readonly log: Log },
): Promise<Snapshotters> {
  await using undo = new AsyncDisposableStack();
  const instances: SnapshotterInstance[] = [];
  const ledgers: SnapshotterLedger[] = [];
  const recoveries: Promise<void>[] = [];
  for (const instance of config.snapshotters.values()) {
    const { name, root } = instance;
    try {
      const opened = await openSnapshotter(instance, uuid, namespaced, dependencies);
      instances.push(opened.instance);
      ledgers.push({ name, root, store: opened.snapshotter });
      recoveries.push(undo.use(opened.snapshotter).recovered);
    } catch (error) {
      // Started by flags there is only this one; otherwise the others go on and requests say why.
      if (!(error instanceof OpError) || config.byFlags) throw error;
      dependencies.log.error(
        { snapshotter: name, error: error.message },
        'snapshotter is not available',
      );
      instances.push({ config: instance, snapshotter: undefined, capabilities: [], error });
    }
  }
  const opened = undo.move();
  return {
    instances,
    ledgers,
    recovered: Promise.all(recoveries).then(() => undefined),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

async function openSnapshotter(
  config: SnapshotterConfig,
  uuid: string,
  namespaced: Namespaced | undefined,
  dependencies: SnapshotterDependencies,
): Promise<{ instance: SnapshotterInstance; snapshotter: TreeSnapshotter }> {
  const { name, root, durability, table } = config;
  const factory = factoryOf(config);
  factory.checkRoot?.(root, dependencies);
  await claimSnapshotterRoot(
    { root, snapshotter: name, driver: config.driver, uuid },
    dependencies.metadata,
  );
  const driver = await factory.open({ root, durability, table }, dependencies);
  const tree = await TreeSnapshotter.open(name, { ...dependencies, driver });
  const snapshotter = namespaced?.snapshotter(name, tree) ?? tree;
  const capabilities = factory.capabilities(table);
  const instance = { config, snapshotter, capabilities, error: undefined };
  return { snapshotter: tree, instance };
}

/** @throws OpError InvalidArgument */
function factoryOf({ name, driver }: SnapshotterConfig): DriverFactory {
  const factory = drivers.find((known) => known.name === driver);
  if (factory === undefined) {
    const known = drivers.map((each) => each.name).join(', ');
    throw new OpError(
      'InvalidArgument',
      `snapshotter ${name}: there is no driver ${quote(driver)}, only ${known}`,
    );
  }
  return factory;
}

function resolver(
  instances: readonly SnapshotterInstance[],
  anyName: boolean,
): (name: string) => Snapshotter {
  const byName = new Map(instances.map((instance) => [instance.config.name, instance]));
  const [only] = instances;
  return (name) => {
    const instance = anyName ? only : byName.get(name);
    if (instance === undefined) {
      throw new OpError(
        'InvalidArgument',
        `snapshotter ${quote(name)} is not in the config, which has ${[...byName.keys()].join(', ')}`,
      );
    }
    if (instance.snapshotter === undefined) {
      throw new OpError(
        'FailedPrecondition',
        `snapshotter ${name} is not available: ${messageOf(instance.error)}`,
      );
    }
    return instance.snapshotter;
  };
}
