import type { Digest } from '../../src/base/digest.ts';
import type { Labels } from '../../src/base/labels.ts';
import type { Kind, Usage } from '../../src/snapshotters/snapshotter.ts';

/** What a file must hold, by the seed and size of its bytes. */
export interface FileContent {
  readonly seed: number;
  readonly size: number;
}
export type Files = ReadonlyMap<string, FileContent>;

export interface SnapshotState {
  readonly kind: Kind;
  readonly name: string;
  readonly parent: string;
  readonly labels: Labels;
  /** Written into this snapshot; those of its parents are in `inherited`. */
  readonly own: Files;
  readonly inherited: Files;
  /** As told after Commit. */
  readonly usage?: Usage | undefined;
}

export interface IngestState {
  readonly kind: 'ingest';
  readonly ref: string;
  readonly held: number;
  readonly content: FileContent;
}
export interface BlobState {
  readonly kind: 'blob';
  readonly digest: Digest;
  readonly labels: Labels;
  readonly content: FileContent;
}

/** undefined: not there. */
export type State = SnapshotState | IngestState | BlobState | undefined;

interface Step<S> {
  readonly state: S;
  readonly begun: number;
  acknowledged: number | undefined;
}

/** The time in which a crash happened, in the journal's ticks. */
export interface CrashWindow {
  readonly issued: number;
  readonly completed: number;
}

/**
 * One snapshot or blob through its life. Its changes come one after the other, so a crash leaves it
 * in a state between the last one acknowledged before and the last one begun.
 */
export class Item<S extends State = State> {
  readonly actor: number;
  readonly #journal: Journal;
  #steps: Step<S | undefined>[];

  constructor(journal: Journal, actor: number) {
    this.#journal = journal;
    this.actor = actor;
    this.#steps = [{ state: undefined, begun: 0, acknowledged: 0 }];
  }

  /** As of the last change begun. */
  get state(): S | undefined {
    return this.#steps.at(-1)?.state;
  }

  /** Runs a request that brings the item into `state`; when it fails, the outcome stays open. */
  async change<T>(state: S | undefined, request: () => Promise<T>): Promise<T> {
    const step: Step<S | undefined> = {
      state,
      begun: this.#journal.tick(),
      acknowledged: undefined,
    };
    this.#steps.push(step);
    const answer = await request();
    step.acknowledged = this.#journal.tick();
    return answer;
  }

  /** Adds what is known without any change in the store: files written, usage told. */
  note(state: S): void {
    this.#steps.push({ state, begun: this.#journal.tick(), acknowledged: this.#journal.tick() });
  }

  /** The states that a crash in this window may leave, oldest first. */
  possible(window: CrashWindow): readonly (S | undefined)[] {
    const first = this.#steps.findLastIndex(
      (step) => step.acknowledged !== undefined && step.acknowledged < window.issued,
    );
    return this.#steps
      .slice(first)
      .filter((step) => step.begun < window.completed)
      .map((step) => step.state);
  }

  /** What a crash left is what is from now on. */
  settle(state: S | undefined): void {
    this.#steps = [{ state, begun: this.#journal.tick(), acknowledged: this.#journal.tick() }];
  }

  /** Forgets what no later crash can bring back. */
  prune(): void {
    const first = this.#steps.findLastIndex((step) => step.acknowledged !== undefined);
    this.#steps = this.#steps.slice(first);
  }
}

/** What the tester asked for and what was acknowledged, in the order of a clock of its own. */
export class Journal {
  readonly snapshots = new Set<Item<SnapshotState>>();
  readonly blobs = new Set<Item<IngestState | BlobState>>();
  #now = 1;
  #serial = 0;

  tick(): number {
    return ++this.#now;
  }

  /** A number that no other name or content has. */
  serial(): number {
    return ++this.#serial;
  }

  newSnapshot(actor: number): Item<SnapshotState> {
    const item = new Item<SnapshotState>(this, actor);
    this.snapshots.add(item);
    return item;
  }

  newBlob(actor: number): Item<IngestState | BlobState> {
    const item = new Item<IngestState | BlobState>(this, actor);
    this.blobs.add(item);
    return item;
  }

  /** Drops the items that are surely gone and the past of the others. */
  prune(): void {
    const now: CrashWindow = { issued: this.tick(), completed: this.tick() };
    for (const items of [this.snapshots, this.blobs] as Set<Item>[]) {
      for (const item of items) {
        item.prune();
        if (item.possible(now).every((state) => state === undefined)) items.delete(item);
      }
    }
  }
}
