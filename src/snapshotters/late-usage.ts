import { isOpError } from '../base/errors.ts';
import type { MetadataStore } from '../metadata/metadata.ts';
import type { Accounts, SnapshotDriver } from './driver.ts';
import type { Usage } from './snapshotter.ts';
import { nodeOf, type Snapshot, type SnapshotTree } from './tree.ts';

export interface LateUsageDependencies {
  readonly tree: SnapshotTree;
  readonly metadata: MetadataStore;
  readonly driver: SnapshotDriver;
  readonly accounts: Accounts;
  readonly warn: (fields: Record<string, unknown>, message: string) => void;
  /** How long there is quiet before usages that were counted are checked. */
  readonly quietMs?: number;
}

const QUIET_MS = 5000;

/**
 * The usage of committed snapshots that Commit does not measure: containerd holds its database meanwhile. They never
 * change, so it can be done behind the answer.
 *
 * One whose usage nobody counted is measured at once; if a crash comes before, when somebody asks. What Apply has
 * counted is right unless somebody wrote into the snapshot before its Commit, which nothing tells: it is answered from
 * the start, and checked by a walk when nothing is being unpacked. If a crash or the daemon's end comes before, it stays.
 */
export class LateUsage implements AsyncDisposable {
  readonly #dependencies: LateUsageDependencies;
  readonly #closing = new AbortController();
  readonly #measuring = new Map<Snapshot, Promise<Usage>>();
  readonly #unchecked = new Set<Snapshot>();
  #quiet: NodeJS.Timeout | undefined;

  constructor(dependencies: LateUsageDependencies) {
    this.#dependencies = dependencies;
  }

  begin(snapshot: Snapshot): void {
    void this.#try(snapshot);
  }

  /** @throws OpError NotFound when it is removed meanwhile */
  of(snapshot: Snapshot): Promise<Usage> {
    const known = this.#measuring.get(snapshot);
    if (known !== undefined) return known;
    const measuring = this.#measure(snapshot).finally(() => this.#measuring.delete(snapshot));
    this.#measuring.set(snapshot, measuring);
    return measuring;
  }

  /** @param isToBeChecked whether its usage was counted, not measured */
  committed(snapshot: Snapshot, isToBeChecked: boolean): void {
    if (isToBeChecked) this.#unchecked.add(snapshot);
    if (this.#unchecked.size > 0) this.#waitForQuiet();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#quiet);
    this.#unchecked.clear();
    this.#closing.abort();
    await Promise.allSettled(this.#measuring.values());
  }

  #waitForQuiet(): void {
    const { quietMs = QUIET_MS } = this.#dependencies;
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => void this.#check(), quietMs).unref();
  }

  async #check(): Promise<void> {
    const quiet = this.#quiet;
    for (const snapshot of this.#unchecked) {
      // Somebody has committed meanwhile, and waits for quiet himself.
      if (quiet !== this.#quiet) return;
      if (this.#dependencies.accounts.isWriting) return this.#waitForQuiet();
      this.#unchecked.delete(snapshot);
      await this.#try(snapshot);
    }
  }

  async #try(snapshot: Snapshot): Promise<void> {
    try {
      await this.of(snapshot);
    } catch (error) {
      if (isOpError(error, 'Canceled') || isOpError(error, 'NotFound')) return;
      this.#dependencies.warn({ error, key: snapshot.name }, 'a snapshot could not be measured');
    }
  }

  async #measure(snapshot: Snapshot): Promise<Usage> {
    const { tree, metadata, driver } = this.#dependencies;
    const usage = await driver.usage(nodeOf(snapshot), this.#closing.signal);
    const { usage: known } = snapshot;
    if (known?.inodes === usage.inodes && known.size === usage.size) return usage;
    await metadata.update((tx) => {
      if (tree.get(snapshot.name) === snapshot) tree.change(tx, snapshot, { usage });
    });
    return usage;
  }
}
