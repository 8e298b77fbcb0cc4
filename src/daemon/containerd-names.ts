import type { RequestContext } from '../base/context.ts';
import { isOpError } from '../base/errors.ts';
import { NO_LABELS } from '../base/labels.ts';
import type { StoredIngest } from '../content/content.ts';
import type { SnapshotterLedger } from '../disk/ledger.ts';
import { pluginNode, type NamesSource } from '../disk/names.ts';
import type { Graph } from '../gc/mark.ts';
import { connectRecords } from '../grpc/proxy/containerd.ts';
import { read, Records } from './containerd-gc.ts';

interface Own {
  readonly content: { storedIngests(): Iterable<StoredIngest> };
  readonly snapshotters: readonly SnapshotterLedger[];
}

const NOT_TOLD =
  "not known: containerd does, and is asked where ballast's config has its containerd_address";

/**
 * Of a plugin root: images, containers, leases and labels are containerd's. Without it there are the keys and
 * namespaces that it put into our names.
 * @param address the path of its socket; undefined when nobody told us
 */
export const containerdNames =
  (address: string | undefined, own: Own): NamesSource =>
  async ({ signal }) => {
    if (address === undefined)
      return { graph: ownGraph(own), unknown: NOT_TOLD, nodeOf: pluginNode };
    try {
      const graph = await readAll(address, { signal, namespace: undefined, leaseId: undefined });
      addIngests(graph.own, own);
      return { graph: graph.joined, unknown: '', nodeOf: pluginNode };
    } catch (error) {
      if (!isOpError(error, 'Unavailable')) throw error;
      return { graph: ownGraph(own), unknown: `not known: ${error.message}`, nodeOf: pluginNode };
    }
  };

/** Of all namespaces, and room for what is known here only. */
async function readAll(
  address: string,
  ctx: RequestContext,
): Promise<{ readonly joined: Graph; readonly own: Records }> {
  using records = connectRecords(address);
  const own = new Records();
  const byNamespace = new Map<string, Records>();
  for (const namespace of await records.namespaces(ctx)) {
    const { graph } = await read(address, { ...ctx, namespace });
    byNamespace.set(namespace, graph);
  }
  const joined: Graph = {
    *nodes() {
      for (const each of byNamespace.values()) yield* each.nodes();
      yield* own.nodes();
    },
    find: (node) => byNamespace.get(node.namespace)?.find(node) ?? own.find(node),
  };
  return { joined, own };
}

/** Snapshots with their parents. */
function ownGraph(own: Own): Graph {
  const graph = new Records();
  for (const { name: snapshotter, store } of own.snapshotters) {
    const type = `snapshots/${snapshotter}`;
    for (const { name, parent, labels, createdAt } of store.stored()) {
      const refersTo = parent === '' ? [] : [pluginNode(type, parent)];
      graph.add(pluginNode(type, name), { root: 'with gc.root', createdAt, labels, refersTo });
    }
  }
  addIngests(graph, own);
  return graph;
}

/** containerd does not tell until when it keeps them. */
function addIngests(graph: Records, { content }: Own): void {
  for (const { ref } of content.storedIngests()) {
    const vertex = { root: 'always', createdAt: 0n, labels: NO_LABELS, refersTo: [] } as const;
    graph.add(pluginNode('ingests', ref), vertex);
  }
}
