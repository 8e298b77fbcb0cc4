import { readlink } from 'node:fs/promises';
import { OpError, quote } from '../../base/errors.ts';
import { adaptPlugin, compileFilters } from '../../base/filters.ts';
import type { Labels } from '../../base/labels.ts';
import { labelsToWire } from '../convert/labels.ts';
import { containerd, google } from '../gen/wire.js';
import { unary } from '../service.ts';
import type { Service } from '../service.ts';
import { statusNumber } from '../status.ts';

const v1 = containerd.services.introspection.v1;

/** A part of the daemon as `ctr plugins ls` shows it. */
export interface PluginInfo {
  /** As `io.containerd.snapshotter.v1`. */
  readonly type: string;
  readonly id: string;
  /** Whether what it does depends on the platform, as `ctr` shows it: trees do, blobs do not. */
  readonly isOfPlatform: boolean;
  readonly capabilities: readonly string[];
  /** Facts for other programs, as `root`. */
  readonly exports: Labels;
  /** Why it is not available. */
  readonly error: OpError | undefined;
}

export interface IntrospectionOptions {
  /** Stable for the life of the root. */
  readonly uuid: string;
  /** Asked at each call: a part may fail or recover while the daemon runs. */
  readonly plugins: () => readonly PluginInfo[];
}

export function introspectionService({ uuid, plugins }: IntrospectionOptions): Service {
  return {
    name: 'containerd.services.introspection.v1.Introspection',
    methods: {
      Plugins: unary(v1.PluginsRequest, v1.PluginsResponse, async (_ctx, { filters }) => {
        const matches = await compileFilters(filters);
        const found = plugins().filter((plugin) => matches(adaptPlugin(plugin)));
        return { plugins: found.map(pluginToWire) };
      }),
      Server: unary(google.protobuf.Empty, v1.ServerResponse, async () => ({
        uuid,
        pid: process.pid,
        pidns: await pidNamespace(),
        deprecations: [],
      })),
      PluginInfo: unary(v1.PluginInfoRequest, v1.PluginInfoResponse, async (_ctx, request) => {
        const plugin = plugins().find(({ type, id }) => type === request.type && id === request.id);
        if (plugin === undefined) {
          throw new OpError(
            'NotFound',
            `plugin ${quote(`${request.type}.${request.id}`)}: not found`,
          );
        }
        return { plugin: pluginToWire(plugin) };
      }),
    },
  };
}

function pluginToWire(plugin: PluginInfo): containerd.services.introspection.v1.Plugin.$Properties {
  const { type, id, isOfPlatform, capabilities, exports, error } = plugin;
  return {
    type,
    id,
    platforms: isOfPlatform ? [{ os: 'linux', architecture: goArchitecture() }] : [],
    capabilities: [...capabilities],
    exports: labelsToWire(exports),
    initErr:
      error === undefined ? null : { code: statusNumber(error.code), message: error.message },
  };
}

/** OCI images name architectures as Go does. */
function goArchitecture(): string {
  return process.arch === 'x64' ? 'amd64' : process.arch;
}

/** The namespace's inode number; 0 where /proc does not say. */
async function pidNamespace(): Promise<number> {
  const link = await readlink('/proc/self/ns/pid').catch(() => '');
  return Number(/^pid:\[(\d+)\]$/.exec(link)?.[1] ?? 0);
}
