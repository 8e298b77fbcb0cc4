import type { Clock } from '../base/clock.ts';
import type { RequestContext } from '../base/context.ts';
import { isOpError, messageOf, OpError } from '../base/errors.ts';
import { requireNamespace } from '../base/identifiers.ts';
import type { Node, Vertex } from '../gc/collectible.ts';
import type { LiveGraph } from '../gc/collector.ts';
import type { Explanation, Gc } from '../gc/gc.ts';
import { idOf } from '../gc/mark.ts';
import { named } from '../gc/named.ts';
import { chainsTo } from '../gc/why.ts';
import { connect } from '../grpc/proxy/connect.ts';
import { connectRecords } from '../grpc/proxy/containerd.ts';

const decides = (advice: string): OpError =>
  new OpError(
    'FailedPrecondition',
    `containerd decides what is collected on a plugin socket: ${advice}`,
  );
const elsewhere = (): OpError =>
  decides(
    'it collects by its own schedule, and at once where a removal asks it to, as `ctr images rm --sync` does',
  );

/**
 * Behind a plugin socket images and leases, which keep everything, are containerd's.
 * @param address the path of its socket; undefined when nobody told us
 */
export const containerdGc = (address: string | undefined, clock: Clock): Gc => ({
  why: (ctx, name) => {
    if (address !== undefined) return explained(address, clock, ctx, name);
    throw decides('with containerd_address in the config, its images and leases are read');
  },
  plan: () => {
    throw elsewhere();
  },
  run: () => Promise.reject(elsewhere()),
});

async function* explained(
  address: string,
  clock: Clock,
  ctx: RequestContext,
  name: string,
): AsyncIterable<Explanation> {
  const namespace = requireNamespace(ctx);
  const { signal } = ctx;
  const { graph, version } = await read(address, { signal, namespace, leaseId: undefined });
  const now = (): bigint => clock.now();
  for (const node of await named(graph, namespace, name, { signal })) {
    const chains = await chainsTo(node, graph, { now, signal });
    const notBefore = chains.length > 0 ? undefined : graph.find(node)?.createdAt;
    yield { node, chains, notBefore, collector: `containerd ${version} on ${address}` };
  }
}

/** What a containerd said of one namespace. */
class Records implements LiveGraph {
  readonly #all = new Map<string, { readonly node: Node; readonly vertex: Vertex }>();

  add(node: Node, vertex: Vertex): void {
    this.#all.set(idOf(node), { node, vertex });
  }
  *nodes(): Iterable<Node> {
    for (const { node } of this.#all.values()) yield node;
  }
  find(node: Node): Vertex | undefined {
    return this.#all.get(idOf(node))?.vertex;
  }
  /** It tells nobody. */
  held(): readonly Node[] {
    return [];
  }
  /** It does not change. */
  follow(): Disposable {
    return { [Symbol.dispose]: () => undefined };
  }
}

/**
 * First what is kept, then what keeps it: what comes meanwhile is not taken for something that nothing keeps.
 * Ingests are left out, as containerd does not tell until when it keeps them.
 */
async function read(
  address: string,
  ctx: RequestContext,
): Promise<{ readonly graph: Records; readonly version: string }> {
  try {
    await using connection = connect(address);
    const { version } = await connection.version(ctx);
    const graph = new Records();
    await addContent(graph, ctx, connection);
    await addSnapshots(graph, ctx, connection);
    await addRoots(graph, ctx, address);
    return { graph, version };
  } catch (error) {
    if (!isOpError(error, 'Unavailable')) throw error;
    const reason = messageOf(error);
    throw new OpError(
      'Unavailable',
      `containerd on ${address} decides, and does not answer: ${reason}`,
    );
  }
}

type Connection = ReturnType<typeof connect>;

async function addContent(
  graph: Records,
  ctx: RequestContext,
  { content }: Connection,
): Promise<void> {
  const namespace = requireNamespace(ctx);
  for await (const { digest, labels, createdAt } of content.walk(ctx, [])) {
    const node = { type: 'content', namespace, key: digest };
    graph.add(node, { root: 'with gc.root', createdAt, labels, refersTo: [] });
  }
}

async function addSnapshots(
  graph: Records,
  ctx: RequestContext,
  connection: Connection,
): Promise<void> {
  const namespace = requireNamespace(ctx);
  const plugins = await connection.plugins(ctx, ['type==io.containerd.snapshotter.v1']);
  for (const { id } of plugins.filter(({ error }) => error === '')) {
    const type = `snapshots/${id}`;
    for await (const info of connection.snapshots(id).walk(ctx, [])) {
      const { name, parent, labels, createdAt } = info;
      const refersTo = parent === '' ? [] : [{ type, namespace, key: parent }];
      const vertex = { root: 'with gc.root', createdAt, labels, refersTo } as const;
      graph.add({ type, namespace, key: name }, vertex);
    }
  }
}

async function addRoots(graph: Records, ctx: RequestContext, address: string): Promise<void> {
  const namespace = requireNamespace(ctx);
  const at = (type: string, key: string): Node => ({ type, namespace, key });
  using records = connectRecords(address);
  for (const { id, labels, createdAt, snapshotter, snapshotKey } of await records.containers(ctx)) {
    const refersTo = snapshotter === '' ? [] : [at(`snapshots/${snapshotter}`, snapshotKey)];
    graph.add(at('containers', id), { root: 'always', createdAt, labels, refersTo });
  }
  for (const { name, labels, createdAt, target } of await records.images(ctx)) {
    const refersTo = [at('content', target)];
    graph.add(at('images', name), { root: 'until gc.expire', createdAt, labels, refersTo });
  }
  for (const { id, labels, createdAt, resources } of await records.leases(ctx)) {
    const refersTo = resources.map((resource) => at(resource.type, resource.id));
    graph.add(at('leases', id), { root: 'until gc.expire', createdAt, labels, refersTo });
  }
}
