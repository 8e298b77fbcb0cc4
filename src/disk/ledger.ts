import { realpath } from 'node:fs/promises';
import { join, relative } from 'node:path';
import type { RequestContext } from '../base/context.ts';
import { isOpError } from '../base/errors.ts';
import type { ContentFolders, StoredBlob, StoredIngest } from '../content/content.ts';
import type { FileJobs, PartRule } from '../platform/platform.ts';
import type { SnapshotPlaces, StoredSnapshot } from '../snapshotters/driver.ts';
import type { Kind, Usage } from '../snapshotters/snapshotter.ts';
import type { Turns } from '../gc/slices.ts';

/** A blob, an ingest or a snapshot. */
export interface Stored {
  /** `content`, `ingests` or `snapshots/SNAPSHOTTER`. */
  readonly type: string;
  /** Digest, ref or name, as its store has it. */
  readonly name: string;
  /** All of it is at or below this path; '' for a snapshot without a directory of its own. */
  readonly path: string;
  /** Allocated. */
  readonly bytes: number;
  readonly snapshot: StoredSnapshotFacts | undefined;
}

export interface StoredSnapshotFacts {
  readonly id: string;
  readonly kind: Kind;
  readonly parent: string;
  readonly places: SnapshotPlaces | undefined;
}

/** What belongs to nobody, in bytes. */
export interface Rest {
  readonly metadata: number;
  /** Removed, and still on the disk. */
  readonly trash: number;
  /** The folders around all this, and whatever else lies there. */
  readonly folders: number;
}

/** A snapshotter that is open. */
export interface SnapshotterLedger {
  readonly name: string;
  readonly root: string;
  readonly store: {
    stored(): Iterable<StoredSnapshot>;
    usage(ctx: RequestContext, name: string): Promise<Usage>;
  };
}

export interface LedgerOptions {
  readonly root: string;
  /** Of the metadata store: what is at or below these. */
  readonly metadataPaths: readonly string[];
  readonly content: {
    readonly folders: ContentFolders;
    storedBlobs(): Iterable<StoredBlob>;
    storedIngests(): Iterable<StoredIngest>;
  };
  readonly snapshotters: readonly SnapshotterLedger[];
  readonly jobs: Pick<FileJobs, 'measureParts'>;
}

const FOLDERS = 'folders';
const TRASH = 'trash';
const METADATA = 'metadata';

type Rule = readonly [path: string, rule: PartRule];

const NOT_HERE: PartRule = { own: undefined, below: undefined };

/**
 * What lies below the roots. Sizes of blobs and of committed snapshots were noted when they were written;
 * the rest, which changes, is measured when somebody asks: active snapshots, ingests, trash, metadata, the
 * folders around snapshots. No blob and no committed tree is looked at.
 */
export class Ledger {
  readonly #options: LedgerOptions;

  constructor(options: LedgerOptions) {
    this.#options = options;
  }

  /** None within another. */
  get roots(): readonly string[] {
    const { root, snapshotters } = this.#options;
    const outside = snapshotters.map((each) => each.root).filter((each) => !isBelow(each, root));
    return [root, ...outside];
  }

  /** Everything; of the sizes only those that were noted. */
  *list(): Iterable<Stored> {
    const { content, snapshotters } = this.#options;
    for (const { digest, path, bytes } of content.storedBlobs()) {
      yield { type: 'content', name: digest, path, bytes, snapshot: undefined };
    }
    for (const { ref, path } of content.storedIngests()) {
      yield { type: 'ingests', name: ref, path, bytes: 0, snapshot: undefined };
    }
    for (const { name: snapshotter, store } of snapshotters) {
      const type = `snapshots/${snapshotter}`;
      for (const { name, id, kind, parent, places } of store.stored()) {
        const snapshot = { id, kind, parent, places };
        yield { type, name, path: places?.directory ?? '', bytes: 0, snapshot };
      }
    }
  }

  async measure(
    ctx: RequestContext,
    turns: Turns,
  ): Promise<{ readonly stored: readonly Stored[]; readonly rest: Rest }> {
    const stored: Stored[] = [];
    const toMeasure: Stored[] = [];
    for (const each of this.list()) {
      (each.type === 'content' ? stored : toMeasure).push(each);
      await turns.step();
    }
    const sizes = await this.#walk(toMeasure, ctx.signal);
    const size = (part: string): number => sizes.get(part) ?? 0;
    for (const each of toMeasure) {
      stored.push({ ...each, bytes: (await this.#usage(ctx, each)) + size(partOf(each)) });
      await turns.step();
    }
    const rest = { metadata: size(METADATA), trash: size(TRASH), folders: size(FOLDERS) };
    return { stored, rest };
  }

  /** A path as it begins in the config, should a root there be written with links. */
  async spelled(path: string): Promise<string> {
    for (const root of this.roots) {
      const there = await real(root);
      if (!isBelow(path, root) && isBelow(path, there)) return join(root, relative(there, path));
    }
    return path;
  }

  /** What a path belongs to that nothing stored has: its part, or undefined outside of the roots. */
  partAt(path: string): string | undefined {
    const { metadataPaths, content, snapshotters } = this.#options;
    if (metadataPaths.some((each) => isBelow(path, each))) return METADATA;
    const { trash, ingests } = content.folders;
    const perishable = [trash, ingests, ...snapshotters.map(({ root }) => snapshotsIn(root))];
    if (perishable.some((each) => path !== each && isBelow(path, each))) return TRASH;
    return this.roots.some((each) => isBelow(path, each)) ? FOLDERS : undefined;
  }

  /** One walk for each root. */
  async #walk(
    toMeasure: readonly Stored[],
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, number>> {
    const { root, snapshotters, jobs } = this.#options;
    const sizes = new Map<string, number>();
    const walk = async (folder: string, rules: Iterable<Rule>): Promise<void> => {
      const within = new Map<string, PartRule>();
      for (const [path, rule] of rules) {
        if (path !== folder && isBelow(path, folder)) within.set(relative(folder, path), rule);
      }
      const found = await jobs.measureParts(await real(folder), FOLDERS, within, signal);
      for (const [part, bytes] of found) sizes.set(part, (sizes.get(part) ?? 0) + bytes);
    };
    const others = snapshotters.map((each): Rule => [each.root, NOT_HERE]);
    await walk(root, [...this.#rulesOfRoot(toMeasure), ...others]);
    for (const { name, root: folder } of snapshotters) {
      const snapshots = toMeasure.filter(({ type }) => type === `snapshots/${name}`);
      await walk(folder, rulesOfSnapshotter(folder, snapshots));
    }
    return sizes;
  }

  *#rulesOfRoot(toMeasure: readonly Stored[]): Iterable<Rule> {
    const { metadataPaths, content } = this.#options;
    const { blobs, ingests, trash } = content.folders;
    for (const path of metadataPaths) yield [path, { own: METADATA, below: METADATA }];
    for (const path of blobs) yield [path, { own: FOLDERS, below: undefined }];
    for (const path of [ingests, trash]) yield [path, { own: FOLDERS, below: TRASH }];
    for (const each of toMeasure) {
      if (each.type === 'ingests') yield [each.path, { own: partOf(each), below: partOf(each) }];
    }
  }

  /** Of a snapshot; one that has gone since, or whose directory has, takes nothing. */
  async #usage(ctx: RequestContext, { type, name }: Stored): Promise<number> {
    const { snapshotters } = this.#options;
    const found = snapshotters.find((each) => type === `snapshots/${each.name}`);
    if (found === undefined) return 0;
    try {
      return (await found.store.usage(ctx, name)).size;
    } catch (error) {
      if (isOpError(error, 'NotFound')) return 0;
      throw error;
    }
  }
}

/** What is measured as a snapshot's usage is left out; what is beside it is the snapshot's too. */
function* rulesOfSnapshotter(root: string, snapshots: readonly Stored[]): Iterable<Rule> {
  yield [snapshotsIn(root), { own: FOLDERS, below: TRASH }];
  for (const each of snapshots) {
    const { places } = each.snapshot ?? {};
    if (places === undefined) continue;
    const part = partOf(each);
    yield [places.directory, { own: part, below: part }];
    for (const path of places.measured) yield [path, NOT_HERE];
  }
}

/** Of one that is gone, whoever opens it says so. */
const real = (path: string): Promise<string> => realpath(path).catch(() => path);

const snapshotsIn = (root: string): string => join(root, 'snapshots');

const partOf = ({ type, name }: Stored): string => `${type}\0${name}`;

const isBelow = (path: string, folder: string): boolean =>
  path === folder || path.startsWith(folder === '/' ? folder : `${folder}/`);
