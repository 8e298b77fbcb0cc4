import type { Node } from '../gc/collectible.ts';
import type { Turns } from '../gc/slices.ts';
import type { Stored } from './ledger.ts';
import type { Names } from './names.ts';

/** One thing on the disk, with what the graph calls it. */
export interface Item {
  readonly stored: Stored;
  /** Of a blob, which any namespace may have, without a namespace. */
  readonly node: Node;
}

/** What is stored, by the nodes of the graph. */
export class Catalog {
  readonly #items = new Map<string, Item>();
  /** Those that the graph calls as a newer one: containerd has removed them, and will say so. */
  readonly #replaced: Item[] = [];

  static async of(stored: Iterable<Stored>, names: Names, turns: Turns): Promise<Catalog> {
    const catalog = new Catalog();
    for (const each of stored) {
      catalog.#add({ stored: each, node: nodeOf(each, names) });
      await turns.step();
    }
    return catalog;
  }

  find(node: Node): Item | undefined {
    return this.#items.get(idOf(node));
  }

  *all(): Iterable<Item> {
    yield* this.#items.values();
    yield* this.#replaced;
  }

  #add(item: Item): void {
    const id = idOf(item.node);
    const before = this.#items.get(id);
    if (before === undefined || isNewer(item, before)) this.#items.set(id, item);
    if (before !== undefined) this.#replaced.push(isNewer(item, before) ? before : item);
  }
}

const isNewer = (a: Item, b: Item): boolean =>
  Number(a.stored.snapshot?.id ?? 0) > Number(b.stored.snapshot?.id ?? 0);

const nodeOf = ({ type, name }: Stored, names: Names): Node =>
  type === 'content' ? { type, namespace: '', key: name } : names.nodeOf(type, name);

/** A blob is stored once for all namespaces. */
const idOf = ({ type, namespace, key }: Node): string =>
  type === 'content' ? key : `${type}\0${namespace}\0${key}`;
