import type { RequestContext } from '../../../base/context.ts';
import { isOpError, messageOf, OpError } from '../../../base/errors.ts';
import { type Connection, connect, type RemotePlugin } from '../../../grpc/proxy/connect.ts';
import { connectRecords, type ContainerdRecords } from '../../../grpc/proxy/containerd.ts';
import { lasting } from './compare.ts';
import {
  type BallastFacts,
  type ContainerdFacts,
  type NamespaceFacts,
  type PluginFact,
  SNAPSHOTTER_TYPE,
} from './facts.ts';

/** A daemon that is up answers at once; what is counted here is one call, not a whole listing. */
const ANSWER_MS = 10_000;

/**
 * Asks both. containerd first, as what it records later than we list would look missing; and once more in the
 * end, as what it removes meanwhile would, too.
 * @throws OpError Unavailable naming the socket on which nobody answers
 */
export async function collect(
  containerdSocket: string,
  ballastSocket: string,
): Promise<{ readonly containerd: ContainerdFacts; readonly ballast: BallastFacts }> {
  await using ballast = connect(ballastSocket);
  await using containerd = connect(containerdSocket);
  using records = connectRecords(containerdSocket);

  const ballastVersion = await greet('ballast', ballastSocket, ballast);
  const containerdVersion = await greet('containerd', containerdSocket, containerd);
  const ourPlugins = (await ballast.plugins(within(), [])).map(pluginFact);
  const names = ourPlugins
    .filter(({ type, error }) => type === SNAPSHOTTER_TYPE && error === undefined)
    .map(({ id }) => id);
  const plugins = (await containerd.plugins(within(), [])).map(pluginFact);
  const loaded = names.filter((name) =>
    plugins.some(({ type, id, error }) => type === SNAPSHOTTER_TYPE && id === name && !error),
  );
  const namespaces = async (): Promise<readonly NamespaceFacts[]> => {
    const all: NamespaceFacts[] = [];
    for (const name of await namespacesOf(records, containerdSocket)) {
      all.push(await namespaceFacts(name, loaded, containerd, records));
    }
    return all;
  };
  const before = await namespaces();
  const blobs = new Set((await blobsOf(ballast)).keys());
  const snapshots = await snapshotsOf(ballast, names);
  return {
    containerd: {
      version: containerdVersion,
      plugins,
      namespaces: lasting(before, await namespaces()),
    },
    ballast: {
      version: ballastVersion,
      socket: ballastSocket,
      plugins: ourPlugins,
      blobs,
      snapshots,
    },
  };
}

async function greet(who: string, socket: string, connection: Connection): Promise<string> {
  try {
    return (await connection.version(within())).version;
  } catch (error) {
    throw new OpError(
      'Unavailable',
      `no ${who} answers on ${socket}: ${messageOf(error)}; is it running, and is this its socket?`,
      { cause: error },
    );
  }
}

async function namespacesOf(
  records: ContainerdRecords,
  socket: string,
): Promise<readonly string[]> {
  try {
    return await records.namespaces(within());
  } catch (error) {
    if (!isOpError(error, 'Unimplemented')) throw error;
    throw new OpError(
      'FailedPrecondition',
      `${socket} is not containerd's socket: who answers there has no namespaces`,
      { cause: error },
    );
  }
}

async function namespaceFacts(
  name: string,
  snapshotters: readonly string[],
  containerd: Connection,
  records: ContainerdRecords,
): Promise<NamespaceFacts> {
  return {
    name,
    blobs: await blobsOf(containerd, name),
    snapshots: await snapshotsOf(containerd, snapshotters, name),
    containers: await records.containers(within(name)),
  };
}

async function blobsOf(
  connection: Connection,
  namespace?: string,
): Promise<NamespaceFacts['blobs']> {
  const blobs = new Map<string, ReadonlyMap<string, string>>();
  const ctx = { ...within(namespace), signal: never };
  for await (const { digest, labels } of connection.content.walk(ctx, []))
    blobs.set(digest, labels);
  return blobs;
}

async function snapshotsOf(
  connection: Connection,
  snapshotters: readonly string[],
  namespace?: string,
): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  const all = new Map<string, ReadonlySet<string>>();
  const ctx = { ...within(namespace), signal: never };
  for (const name of snapshotters) {
    const names = new Set<string>();
    for await (const info of connection.snapshots(name).walk(ctx, [])) names.add(info.name);
    all.set(name, names);
  }
  return all;
}

const never = new AbortController().signal;

const within = (namespace?: string): RequestContext => ({
  signal: AbortSignal.timeout(ANSWER_MS),
  namespace,
  leaseId: undefined,
});

const pluginFact = ({ type, id, capabilities, exports, error }: RemotePlugin): PluginFact => ({
  type,
  id,
  capabilities,
  address: exports.get('address')?.replace(/^unix:\/\//, ''),
  error: error === '' ? undefined : error,
});
