import type { Service } from '../grpc/service.ts';
import { contentService } from '../grpc/services/content.ts';
import { diffService } from '../grpc/services/diff.ts';
import { healthService, type Health } from '../grpc/services/health.ts';
import { introspectionService, type PluginInfo } from '../grpc/services/introspection.ts';
import { reflectionServices } from '../grpc/services/reflection.ts';
import { snapshotsService } from '../grpc/services/snapshots.ts';
import { versionService } from '../grpc/services/version.ts';
import { VERSION } from '../version.ts';
import type { SnapshotterInstance, Stores } from './compose.ts';

/** What the plugin socket serves, beside health and reflection. */
export const PLUGIN_SERVICES: readonly string[] = [
  'containerd.services.content.v1.Content',
  'containerd.services.snapshots.v1.Snapshots',
  'containerd.services.diff.v1.Diff',
  'containerd.services.introspection.v1.Introspection',
  'containerd.services.version.v1.Version',
];

export function pluginServices(stores: Stores, health: Health): readonly Service[] {
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
    healthService(health),
    ...reflectionServices([...PLUGIN_SERVICES, 'grpc.health.v1.Health']),
  ];
}

const contentPlugin = ({ contentRoot }: Stores): PluginInfo => ({
  type: 'io.containerd.content.v1',
  id: 'content',
  capabilities: [],
  exports: new Map([['root', contentRoot]]),
  error: undefined,
});

const DIFF_PLUGIN: PluginInfo = {
  type: 'io.containerd.differ.v1',
  id: 'diff',
  capabilities: [],
  exports: new Map(),
  error: undefined,
};

const snapshotterPlugin = ({ config, capabilities, error }: SnapshotterInstance): PluginInfo => ({
  type: 'io.containerd.snapshotter.v1',
  id: config.name,
  capabilities,
  exports: new Map([
    ['root', config.root],
    ['driver', config.driver],
    ['durability', config.durability],
  ]),
  error,
});
