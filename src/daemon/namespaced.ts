import type { Clock } from '../base/clock.ts';
import { OpError } from '../base/errors.ts';
import type { ContainerStore } from '../containers/container.ts';
import { LocalContainerStore } from '../containers/store.ts';
import type { LocalContentStore } from '../content/local-store.ts';
import { NamespacedContentStore, type Sharing } from '../content/namespaced-store.ts';
import type { Log } from '../base/log.ts';
import type { EventExchange } from '../events/event.ts';
import { LocalEventExchange } from '../events/exchange.ts';
import type { Collectible, GcRuns } from '../gc/collectible.ts';
import { Collector } from '../gc/collector.ts';
import type { Graph } from '../gc/mark.ts';
import type { Gc } from '../gc/gc.ts';
import { LocalGc } from '../gc/local-gc.ts';
import { Scheduler, type GcConfig } from '../gc/scheduler.ts';
import { decodeEvent } from '../grpc/convert/events.ts';
import type { ImageStore } from '../images/image.ts';
import { LocalImageStore } from '../images/store.ts';
import type { LeaseManager } from '../leases/lease.ts';
import { LocalLeaseManager } from '../leases/store.ts';
import type { MetadataStore } from '../metadata/metadata.ts';
import type { NamespaceStore } from '../namespaces/namespace.ts';
import type { MountManager } from '../mounts/mount.ts';
import { LocalMountManager } from '../mounts/store.ts';
import { LocalNamespaceStore } from '../namespaces/store.ts';
import type { FileJobs } from '../platform/platform.ts';
import type { LayersConfig } from './config.ts';
import { namespacedBlobs, type LayerBlobs } from './layer-blobs.ts';
import { LocalStreamRegistry } from '../streams/registry.ts';
import type { StreamRegistry } from '../streams/stream.ts';
import { NamespacedSnapshotter } from '../snapshotters/namespaced-snapshotter.ts';
import type { Snapshotter } from '../snapshotters/snapshotter.ts';
import type { TreeSnapshotter } from '../snapshotters/tree-snapshotter.ts';

/** The nouns that only a standalone socket has. */
export interface Nouns {
  readonly namespaces: NamespaceStore;
  readonly images: ImageStore;
  readonly leases: LeaseManager;
  readonly containers: ContainerStore;
  readonly events: EventExchange;
  readonly streams: StreamRegistry;
  readonly mounts: MountManager;
  readonly gc: GcRuns;
}

/** What puts namespaces, leases and events around the stores that a plugin socket serves as they are. */
export interface Namespaced extends AsyncDisposable {
  readonly nouns: Nouns;
  /** What a crash left mounted is gone. */
  readonly recovered: Promise<void>;
  readonly content: NamespacedContentStore;
  readonly blobs: LayerBlobs;
  readonly gc: Gc;
  /** All that there is, whether it is collected or not. */
  readonly graph: Graph;
  snapshotter(name: string, backend: TreeSnapshotter): Snapshotter;
  /**
   * Records and disk agree everywhere: what nobody refers to is collected from now on. Nothing is while there are
   * snapshotters whose snapshots nobody can look at: blobs that only they refer to would go.
   * @param missing their names
   */
  readonly startCollecting: (missing: readonly string[]) => void;
}

interface Dependencies {
  readonly jobs: Pick<FileJobs, 'mounts'>;
  readonly metadata: MetadataStore;
  readonly clock: Clock;
  readonly log: Log;
  readonly warn: (fields: Record<string, unknown>, message: string) => void;
}

interface Options {
  /** Of the daemon. */
  readonly root: string;
  readonly sharing: Sharing;
  readonly gc: GcConfig;
  readonly layers: Pick<LayersConfig, 'verify'>;
}

/** @param backend its records and the disk were compared */
export async function openNamespaced(
  backend: LocalContentStore,
  { root, sharing, gc: gcConfig, layers }: Options,
  dependencies: Dependencies,
): Promise<Namespaced> {
  const { metadata, clock, log, warn, jobs } = dependencies;
  const collector = new Collector({ metadata, clock });
  const gc = new Scheduler(gcConfig, { collector, clock, log });
  const ready = Promise.withResolvers<void>();
  ready.promise.catch(() => undefined);
  const events = new LocalEventExchange(clock, decodeEvent);
  const namespaces = await LocalNamespaceStore.open({ metadata, events });
  const leases = await LocalLeaseManager.open({ metadata, namespaces, gc, clock });
  const books = { metadata, namespaces, leases, gc, events, clock };
  const images = await LocalImageStore.open(books);
  const containers = await LocalContainerStore.open(books);
  const streams = new LocalStreamRegistry(books);
  const content = await NamespacedContentStore.open(backend, { ...books, sharing, warn });
  const mounts = await LocalMountManager.open(root, { ...books, jobs: jobs.mounts, warn });
  for (const noun of [leases, images, containers, streams, mounts]) collector.add(noun);
  const all: Collectible[] = [leases, images, containers, content, content.ingests];
  return {
    nouns: { namespaces, images, leases, containers, events, streams, mounts, gc },
    recovered: mounts.recovered,
    content,
    blobs: namespacedBlobs(backend, content, layers.verify),
    gc: new LocalGc({ collector, scheduler: gc, clock, ready: ready.promise }),
    snapshotter: (name, tree) => {
      const snapshotter = new NamespacedSnapshotter(name, tree, books);
      collector.add(snapshotter);
      all.push(snapshotter);
      return snapshotter;
    },
    graph: graphOf(all),
    startCollecting: (missing) => {
      if (missing.length > 0) {
        log.warn({ snapshotters: missing }, 'nothing is collected while these are not available');
        void gc[Symbol.asyncDispose]();
        ready.reject(
          new OpError(
            'FailedPrecondition',
            `nothing is collected while snapshotters that have snapshots are not available: ${missing.join(', ')}`,
          ),
        );
        return;
      }
      collector.add(content);
      collector.add(content.ingests);
      gc.start();
      ready.resolve();
    },
    [Symbol.asyncDispose]: () => gc[Symbol.asyncDispose](),
  };
}

/** @param nouns may grow */
const graphOf = (nouns: readonly Collectible[]): Graph => ({
  *nodes() {
    for (const noun of nouns) yield* noun.nodes();
  },
  find: ({ type, namespace, key }) =>
    nouns.find((noun) => noun.type === type)?.find(namespace, key),
});
