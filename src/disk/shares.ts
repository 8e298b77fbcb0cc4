import type { Node } from '../gc/collectible.ts';
import { joined, type Keeper, type Keepers } from '../gc/keepers.ts';
import type { Turns } from '../gc/slices.ts';
import type { Catalog, Item } from './catalog.ts';
import type { OwnerUsage, Part, SnapshotUsage } from './disk.ts';

/** The types that a person knows; other roots keep things too. */
const OWNERS: ReadonlySet<string> = new Set(['images', 'containers', 'leases']);

type WritablePart = { -readonly [field in keyof Part]: Part[field] };

export const emptyPart = (type: string, bytes = 0): WritablePart => ({
  type,
  count: 0,
  bytes,
  unique: 0,
  shared: 0,
  unreferenced: 0,
});

const KEPT_BY = ['unreferenced', 'unique', 'shared'] as const;

/**
 * How what is stored is shared among the roots. For each thing only its one keeper is remembered, or that
 * there are more: memory grows with what is stored, not with who keeps it.
 */
export class Shares {
  readonly #catalog: Catalog;
  readonly #keepers: Keepers;
  readonly #turns: Turns;
  readonly #keeperOf = new Map<Item, Keeper>();

  private constructor(catalog: Catalog, keepers: Keepers, turns: Turns) {
    this.#catalog = catalog;
    this.#keepers = keepers;
    this.#turns = turns;
  }

  static async of(catalog: Catalog, keepers: Keepers, turns: Turns): Promise<Shares> {
    const shares = new Shares(catalog, keepers, turns);
    const keeperOfEach = await keepers.keeperOfEach();
    for (const node of keepers.graph.nodes()) {
      const item = catalog.find(node);
      const keeper = keeperOfEach.of(node);
      if (item !== undefined && keeper !== undefined) {
        shares.#keeperOf.set(item, joined(shares.#keeperOf.get(item), keeper));
      }
      await turns.step();
    }
    return shares;
  }

  /** Of content, ingests and each snapshotter that has snapshots. */
  async parts(): Promise<readonly Part[]> {
    const parts = new Map<string, WritablePart>();
    for (const type of ['content', 'ingests']) parts.set(type, emptyPart(type));
    for (const item of this.#catalog.all()) {
      const { type, bytes } = item.stored;
      const part = parts.get(type) ?? emptyPart(type);
      parts.set(type, part);
      part.count++;
      part.bytes += bytes;
      part[KEPT_BY[this.#keepersOf(item)]] += bytes;
      await this.#turns.step();
    }
    return [...parts.values()];
  }

  async owners(): Promise<readonly OwnerUsage[]> {
    const uniqueOf = new Map<Keeper, number>();
    for (const item of this.#catalog.all()) {
      const keeper = this.#keeperOf.get(item);
      if (keeper !== undefined) {
        uniqueOf.set(keeper, (uniqueOf.get(keeper) ?? 0) + item.stored.bytes);
      }
      await this.#turns.step();
    }
    const owners: OwnerUsage[] = [];
    for (const root of this.#keepers.roots()) {
      if (!OWNERS.has(root.type)) continue;
      const unique = uniqueOf.get(root) ?? 0;
      owners.push({ ...root, unique, shared: (await this.#bytesBelow(root)) - unique });
    }
    return owners;
  }

  async snapshots(): Promise<readonly SnapshotUsage[]> {
    const found: SnapshotUsage[] = [];
    for (const item of this.#catalog.all()) {
      const { snapshot, bytes } = item.stored;
      await this.#turns.step();
      if (snapshot === undefined) continue;
      const { id, kind } = snapshot;
      found.push({ ...item.node, id, kind, bytes, keepers: this.#keepersOf(item) });
    }
    return found;
  }

  #keepersOf(item: Item): 0 | 1 | 2 {
    const keeper = this.#keeperOf.get(item);
    if (keeper === undefined) return 0;
    return keeper === 'several' ? 2 : 1;
  }

  async #bytesBelow(root: Node): Promise<number> {
    let bytes = 0;
    for (const node of await this.#keepers.below(root)) {
      bytes += this.#catalog.find(node)?.stored.bytes ?? 0;
      await this.#turns.step();
    }
    return bytes;
  }
}
