import type { Clock } from '../base/clock.ts';
import type { RequestContext } from '../base/context.ts';
import { notFound, quote, type OpError } from '../base/errors.ts';
import { Keepers } from '../gc/keepers.ts';
import { Turns } from '../gc/slices.ts';
import { Catalog, type Item } from './catalog.ts';
import type { Disk, DiskUsage, Identity, Place, Question } from './disk.ts';
import { Identification } from './identification.ts';
import type { Ledger } from './ledger.ts';
import type { Names, NamesSource } from './names.ts';
import { emptyPart, Shares } from './shares.ts';

export interface LocalDiskDependencies {
  readonly ledger: Ledger;
  readonly names: NamesSource;
  readonly clock: Clock;
  /** Resolves when records and disk agree. */
  readonly recovered: Promise<void>;
}

/** Disk of this daemon: the ledger, and who keeps what by the edges of the collector. */
export class LocalDisk implements Disk {
  readonly #dependencies: LocalDiskDependencies;

  constructor(dependencies: LocalDiskDependencies) {
    this.#dependencies = dependencies;
  }

  async usage(ctx: RequestContext, { verbose }: { verbose: boolean }): Promise<DiskUsage> {
    const { ledger } = this.#dependencies;
    const turns = new Turns(ctx.signal);
    const names = await this.#names(ctx);
    const { stored, rest } = await ledger.measure(ctx, turns);
    const catalog = await Catalog.of(stored, names, turns);
    const shares = await Shares.of(catalog, await this.#keepers(names, turns), turns);
    const parts = [
      ...(await shares.parts()),
      ...Object.entries(rest).map(([type, bytes]) => emptyPart(type, bytes)),
    ];
    return {
      roots: ledger.roots,
      parts,
      total: parts.reduce((sum, { bytes }) => sum + bytes, 0),
      owners: verbose ? await shares.owners() : [],
      snapshots: verbose ? await shares.snapshots() : [],
      namesUnknown: names.unknown,
    };
  }

  async whoIs(ctx: RequestContext, question: Question): Promise<readonly Identity[]> {
    const { ledger } = this.#dependencies;
    const { turns, names, catalog, keepers } = await this.#look(ctx);
    const identification = new Identification({ names, catalog, keepers, turns });
    if ('id' in question) {
      const found = await identification.named(question.id);
      if (found.items.length + found.nodes.length === 0) throw nothingNamed(question.id);
      return identification.identities(found);
    }
    for (const given of question.paths) {
      const path = await ledger.spelled(given);
      const part = ledger.partAt(path);
      if (part === undefined) continue;
      const item = await identification.at(path);
      return item === undefined
        ? [identification.part(part)]
        : identification.identities({ items: [item], nodes: [] });
    }
    throw notFound(`a root above ${question.paths.map(quote).join(', ')}`);
  }

  async where(ctx: RequestContext, name: string): Promise<readonly Place[]> {
    const { turns, names, catalog, keepers } = await this.#look(ctx);
    const identification = new Identification({ names, catalog, keepers, turns });
    const { items, nodes } = await identification.named(name);
    if (items.length + nodes.length === 0) throw nothingNamed(name);
    const found = new Set<Item>(items);
    for (const node of nodes) {
      for (const kept of await keepers.below(node)) {
        const item = catalog.find(kept);
        if (item !== undefined) found.add(item);
      }
    }
    return identification.places([...found]);
  }

  async #look(ctx: RequestContext) {
    const turns = new Turns(ctx.signal);
    const names = await this.#names(ctx);
    const catalog = await Catalog.of(this.#dependencies.ledger.list(), names, turns);
    return { turns, names, catalog, keepers: await this.#keepers(names, turns) };
  }

  async #names(ctx: RequestContext): Promise<Names> {
    await this.#dependencies.recovered;
    return this.#dependencies.names(ctx);
  }

  #keepers({ graph }: Names, turns: Turns): Promise<Keepers> {
    return Keepers.of(graph, this.#dependencies.clock.now(), turns);
  }
}

const nothingNamed = (name: string): OpError =>
  notFound(`a blob, ingest, snapshot, image, container or lease called ${quote(name)}`);
