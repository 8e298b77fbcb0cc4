import type { Service } from '../grpc/service.ts';
import { containersService } from '../grpc/services/containers.ts';
import { contentService } from '../grpc/services/content.ts';
import { diffService } from '../grpc/services/diff.ts';
import { diskService } from '../grpc/services/disk.ts';
import { eventsService } from '../grpc/services/events.ts';
import { gcService } from '../grpc/services/gc.ts';
import { healthService, type Health } from '../grpc/services/health.ts';
import { imagesService } from '../grpc/services/images.ts';
import { introspectionService, type PluginInfo } from '../grpc/services/introspection.ts';
import { leasesService } from '../grpc/services/leases.ts';
import { mountsService } from '../grpc/services/mounts.ts';
import { namespacesService } from '../grpc/services/namespaces.ts';
import { reflectionServices } from '../grpc/services/reflection.ts';
import { snapshotsService } from '../grpc/services/snapshots.ts';
import { streamingService } from '../grpc/services/streaming.ts';
import { transferService } from '../grpc/services/transfer.ts';
import { versionService } from '../grpc/services/version.ts';
import { VERSION } from '../version.ts';
import type { SnapshotterInstance, Stores } from './compose.ts';
import type { Nouns } from './namespaced.ts';
import { openTransfers } from './transfers.ts';

/** What a plugin socket serves, beside health and reflection. */
const PLUGIN_SERVICES: readonly string[] = [
  'containerd.services.content.v1.Content',
  'containerd.services.snapshots.v1.Snapshots',
  'containerd.services.diff.v1.Diff',
  'containerd.services.introspection.v1.Introspection',
  'containerd.services.version.v1.Version',
  'ballast.v1.GC',
  'ballast.v1.Disk',
];

/** What a standalone socket serves besides. */
const NOUN_SERVICES: readonly string[] = [
  'containerd.services.namespaces.v1.Namespaces',
  'containerd.services.images.v1.Images',
  'containerd.services.leases.v1.Leases',
  'containerd.services.containers.v1.Containers',
  'containerd.services.events.v1.Events',
  'containerd.services.streaming.v1.Streaming',
  'containerd.services.transfer.v1.Transfer',
  'containerd.services.mounts.v1.Mounts',
];

/** The services of a socket over these stores, by name. */
export const namesOf = ({ nouns }: Pick<Stores, 'nouns'>): readonly string[] =>
  nouns === undefined ? PLUGIN_SERVICES : [...PLUGIN_SERVICES, ...NOUN_SERVICES];

export function servicesOf(stores: Stores, health: Health): readonly Service[] {
  const plugins = [
    contentPlugin(stores),
    DIFF_PLUGIN,
    ...stores.snapshotters.map(snapshotterPlugin),
  ];
  return [
    contentService(stores.content),
    snapshotsService((name) => stores.snapshotter(name)),
    diffService(stores.applier, stores.comparer),
    introspectionService({ uuid: stores.uuid, plugins: () => plugins }),
    versionService({ version: VERSION, revision: '' }),
    gcService(stores.gc),
    diskService(stores.disk),
    ...(stores.nouns === undefined ? [] : nounServices(stores, stores.nouns)),
    healthService(health),
    ...reflectionServices([...namesOf(stores), 'grpc.health.v1.Health']),
  ];
}

const nounServices = (stores: Stores, nouns: Nouns): readonly Service[] => [
  namespacesService(nouns.namespaces),
  imagesService(nouns.images, nouns.gc),
  leasesService(nouns.leases, nouns.gc),
  containersService(nouns.containers),
  eventsService(nouns.events),
  streamingService(nouns.streams),
  transferService(openTransfers(stores, nouns), nouns.streams),
  mountsService(nouns.mounts),
];

const contentPlugin = ({ contentRoot }: Stores): PluginInfo => ({
  type: 'io.containerd.content.v1',
  id: 'content',
  isOfPlatform: false,
  capabilities: [],
  exports: new Map([['root', contentRoot]]),
  error: undefined,
});

const DIFF_PLUGIN: PluginInfo = {
  type: 'io.containerd.differ.v1',
  id: 'diff',
  isOfPlatform: true,
  capabilities: [],
  exports: new Map(),
  error: undefined,
};

const snapshotterPlugin = ({ config, capabilities, error }: SnapshotterInstance): PluginInfo => ({
  type: 'io.containerd.snapshotter.v1',
  id: config.name,
  isOfPlatform: true,
  capabilities,
  exports: new Map([
    ['root', config.root],
    ['driver', config.driver],
    ['durability', config.durability],
  ]),
  error,
});
