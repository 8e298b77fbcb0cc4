import type { RequestContext } from '../../base/context.ts';
import type { Labels } from '../../base/labels.ts';
import type { ContentStore } from '../../content/content.ts';
import type { Applier, Comparer } from '../../diff/diff.ts';
import type { Snapshotter } from '../../snapshotters/snapshotter.ts';
import { labelsFromWire } from '../convert/labels.ts';
import { containerd, google, grpc } from '../gen/wire.js';
import { Calls } from './calls.ts';
import { ContentProxy } from './content.ts';
import { DiffProxy } from './diff.ts';
import { SnapshotterProxy } from './snapshots.ts';

const introspection = containerd.services.introspection.v1;
const { Empty } = google.protobuf;

const VERSION = {
  path: '/containerd.services.version.v1.Version/Version',
  request: Empty,
  response: containerd.services.version.v1.VersionResponse,
};
const SERVER = {
  path: '/containerd.services.introspection.v1.Introspection/Server',
  request: Empty,
  response: introspection.ServerResponse,
};
const PLUGINS = {
  path: '/containerd.services.introspection.v1.Introspection/Plugins',
  request: introspection.PluginsRequest,
  response: introspection.PluginsResponse,
};
const HEALTH = {
  path: '/grpc.health.v1.Health/Check',
  request: grpc.health.v1.HealthCheckRequest,
  response: grpc.health.v1.HealthCheckResponse,
};

export interface RemotePlugin {
  readonly type: string;
  readonly id: string;
  readonly capabilities: readonly string[];
  readonly exports: Labels;
  /** Why it is not available; '' if it is. */
  readonly error: string;
}

/** A daemon, ours or containerd: both speak this protocol. */
export interface Connection extends AsyncDisposable {
  readonly content: ContentStore;
  readonly applier: Applier;
  readonly comparer: Comparer;
  /** @param name as its config has it */
  snapshots(name: string): Snapshotter;
  version(ctx: RequestContext): Promise<{ readonly version: string; readonly revision: string }>;
  server(ctx: RequestContext): Promise<{ readonly uuid: string; readonly pid: number }>;
  /** @throws OpError InvalidArgument for a filter */
  plugins(ctx: RequestContext, filters: readonly string[]): Promise<readonly RemotePlugin[]>;
  /** Whether the daemon, or a service of it by its full name, says that it serves. @throws NotFound */
  serving(ctx: RequestContext, service?: string): Promise<boolean>;
}

/**
 * Connects when the first call is made, and again after a restart of the daemon.
 * @param address the path of a unix socket, or a gRPC target
 */
export function connect(address: string): Connection {
  const calls = new Calls(address);
  const diff = new DiffProxy(calls);
  return {
    content: new ContentProxy(calls),
    applier: diff,
    comparer: diff,
    snapshots: (name) => new SnapshotterProxy(calls, name),
    version: async (ctx) => {
      const { version, revision } = await calls.unary(ctx, VERSION, {});
      return { version, revision };
    },
    server: async (ctx) => {
      const { uuid, pid } = await calls.unary(ctx, SERVER, {});
      return { uuid, pid };
    },
    plugins: async (ctx, filters) => {
      const { plugins } = await calls.unary(ctx, PLUGINS, { filters: [...filters] });
      return plugins.map((plugin) => ({
        type: plugin.type ?? '',
        id: plugin.id ?? '',
        capabilities: plugin.capabilities ?? [],
        exports: labelsFromWire(plugin.exports ?? {}),
        error: plugin.initErr?.message ?? '',
      }));
    },
    serving: async (ctx, service = '') => {
      const { status } = await calls.unary(ctx, HEALTH, { service });
      return status === grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING;
    },
    [Symbol.asyncDispose]: async () => calls[Symbol.dispose](),
  };
}
