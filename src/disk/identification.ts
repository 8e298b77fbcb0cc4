import { dirname } from 'node:path';
import { chainIdOf } from '../base/digest.ts';
import { UNCOMPRESSED_LABEL } from '../base/labels.ts';
import type { Node } from '../gc/collectible.ts';
import type { Above, Keepers } from '../gc/keepers.ts';
import type { Turns } from '../gc/slices.ts';
import type { Catalog, Item } from './catalog.ts';
import type { Identity, Place } from './disk.ts';
import type { Names } from './names.ts';

export interface Found {
  readonly items: readonly Item[];
  /** Images, containers and leases, which are on the disk by what they keep alone. */
  readonly nodes: readonly Node[];
}

interface Dependencies {
  readonly names: Names;
  readonly catalog: Catalog;
  readonly keepers: Keepers;
  readonly turns: Turns;
}

/** Finds things by path and by any of their names, and says all that is known of them. */
export class Identification {
  readonly #dependencies: Dependencies;
  /** Who has a blob, and the labels that a namespace has given it. */
  #blobs: Map<string, Node[]> | undefined;

  constructor(dependencies: Dependencies) {
    this.#dependencies = dependencies;
  }

  /** What is at or above a path. */
  async at(path: string): Promise<Item | undefined> {
    const { catalog, turns } = this.#dependencies;
    const above = new Set<string>();
    for (let at = path; at !== dirname(at); at = dirname(at)) above.add(at);
    for (const item of catalog.all()) {
      if (above.has(item.stored.path)) return item;
      await turns.step();
    }
    return undefined;
  }

  async named(id: string): Promise<Found> {
    const { catalog, names, turns } = this.#dependencies;
    const items = new Set<Item>();
    for (const item of catalog.all()) {
      const { node, stored } = item;
      if ([node.key, stored.name, stored.snapshot?.id].includes(id)) items.add(item);
      await turns.step();
    }
    const nodes: Node[] = [];
    for (const node of names.graph.nodes()) {
      if (node.type === 'content') {
        const item = this.#diffIdOf(node) === id ? catalog.find(node) : undefined;
        if (item !== undefined) items.add(item);
      } else if (node.key === id && catalog.find(node) === undefined) nodes.push(node);
      await turns.step();
    }
    return { items: [...items], nodes };
  }

  part(type: string): Identity {
    return { ...NOTHING_MORE, type, namespaces: [], key: '' };
  }

  /** What is found, with who keeps it. */
  async identities({ items, nodes }: Found): Promise<readonly Identity[]> {
    const identities: Identity[] = [];
    for (const item of items) identities.push(await this.#identity(item));
    for (const { type, namespace, key } of nodes) {
      identities.push({ ...NOTHING_MORE, type, namespaces: [namespace], key });
    }
    return identities;
  }

  async places(items: readonly Item[]): Promise<readonly Place[]> {
    const places: Place[] = [];
    for (const item of items) {
      const { type, key } = item.node;
      const { path, snapshot } = item.stored;
      const { tree = '', work = '', lowers = [] } = snapshot?.places ?? {};
      const namespaces = (await this.#nodesOf(item)).map(({ namespace }) => namespace);
      places.push({ type, namespaces, key, path, tree, work, lowers });
    }
    return places;
  }

  async #identity(item: Item): Promise<Identity> {
    const { catalog, names, keepers } = this.#dependencies;
    const { type, key } = item.node;
    const { id = '', kind = '', parent = '' } = item.stored.snapshot ?? {};
    const own = await this.#nodesOf(item);
    const isKnown = own.some((node) => catalog.find(node) === item);
    const above = isKnown ? await Promise.all(own.map((node) => keepers.above(node))) : [];
    const layer = await this.#layerOf(item, above);
    const diffIds = own.map((node) => this.#diffIdOf(node));
    return {
      type,
      namespaces: own.map(({ namespace }) => namespace),
      key,
      id,
      kind,
      parent: parent === '' ? '' : names.nodeOf(type, parent).key,
      diffId: layer?.diffId ?? diffIds.find((diffId) => diffId !== undefined) ?? '',
      layer: layer?.digest ?? '',
      keptBy: above.flatMap(({ roots }) => roots),
    };
  }

  /** What the graph calls it; a blob by one node for each namespace that has it. */
  async #nodesOf({ node }: Item): Promise<readonly Node[]> {
    if (node.type !== 'content') return [node];
    if (this.#blobs === undefined) {
      this.#blobs = new Map();
      for (const each of this.#dependencies.names.graph.nodes()) {
        if (each.type === 'content') {
          const known = this.#blobs.get(each.key);
          if (known === undefined) this.#blobs.set(each.key, [each]);
          else known.push(each);
        }
        await this.#dependencies.turns.step();
      }
    }
    return this.#blobs.get(node.key) ?? [];
  }

  /**
   * The blob that a snapshot was unpacked from, as chain IDs tell: somebody above refers to both. (A label of a
   * config or manifest refers to the snapshot, and a manifest to its layers.)
   */
  async #layerOf(
    { node, stored }: Item,
    above: readonly Above[],
  ): Promise<{ readonly digest: string; readonly diffId: string } | undefined> {
    const { names, keepers, turns } = this.#dependencies;
    if (stored.snapshot?.kind !== 'committed') return undefined;
    const { parent } = stored.snapshot;
    const below = parent === '' ? undefined : names.nodeOf(node.type, parent).key;
    for (const each of above.flatMap(({ nodes }) => nodes)) {
      if (each.type !== 'content') continue;
      for (const blob of keepers.references(each)) {
        await turns.step();
        if (blob.type !== 'content') continue;
        const diffId = this.#diffIdOf(blob) ?? blob.key;
        if (chainIdOf<string>(below, diffId) === node.key) return { digest: blob.key, diffId };
      }
    }
    return undefined;
  }

  #diffIdOf(blob: Node): string | undefined {
    return this.#dependencies.names.graph.find(blob)?.labels.get(UNCOMPRESSED_LABEL);
  }
}

const NOTHING_MORE = {
  id: '',
  kind: '',
  parent: '',
  diffId: '',
  layer: '',
  keptBy: [],
} as const;
