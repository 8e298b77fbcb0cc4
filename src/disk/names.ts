import type { RequestContext } from '../base/context.ts';
import type { Node } from '../gc/collectible.ts';
import type { Graph } from '../gc/mark.ts';

/** Who refers to whom, and what the graph calls the things that are stored. */
export interface Names {
  readonly graph: Graph;
  /** Why images, containers and leases are not in the graph; '' when they are. */
  readonly unknown: string;
  /** @param name of a snapshot or ingest, as its store has it */
  nodeOf(type: string, name: string): Node;
}

export type NamesSource = (ctx: RequestContext) => Promise<Names>;

/** Of a standalone root, where snapshots and ingests are called NAMESPACE/KEY. */
export const standaloneNames =
  (graph: Graph): NamesSource =>
  async () => ({ graph, unknown: '', nodeOf: standaloneNode });

function standaloneNode(type: string, name: string): Node {
  const slash = name.indexOf('/');
  return { type, namespace: name.slice(0, Math.max(slash, 0)), key: name.slice(slash + 1) };
}

/** NAMESPACE/NUMBER/KEY, as containerd names what it keeps in a plugin; clients of our own do as they like. */
export function pluginNode(type: string, name: string): Node {
  const { namespace = '', key = name } =
    /^(?<namespace>[^/]+)\/\d+\/(?<key>.+)$/s.exec(name)?.groups ?? {};
  return { type, namespace, key };
}
