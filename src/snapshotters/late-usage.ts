import { isOpError } from '../base/errors.ts';
import type { MetadataStore } from '../metadata/metadata.ts';
import type { SnapshotDriver } from './driver.ts';
import type { Usage } from './snapshotter.ts';
import { nodeOf, type Snapshot, type SnapshotTree } from './tree.ts';

export interface LateUsageDependencies {
  readonly tree: SnapshotTree;
  readonly metadata: MetadataStore;
  readonly driver: SnapshotDriver;
  readonly warn: (fields: Record<string, unknown>, message: string) => void;
}

/**
 * The usage of committed snapshots that are too large for Commit to wait until they are measured: containerd
 * holds its database meanwhile. They never change, so it can be done behind the answer; one that a crash left
 * unmeasured is measured when somebody asks.
 */
export class LateUsage implements AsyncDisposable {
  readonly #dependencies: LateUsageDependencies;
  readonly #closing = new AbortController();
  readonly #measuring = new Map<Snapshot, Promise<Usage>>();

  constructor(dependencies: LateUsageDependencies) {
    this.#dependencies = dependencies;
  }

  begin(snapshot: Snapshot): void {
    this.of(snapshot).catch((error: unknown) => {
      if (isOpError(error, 'Canceled') || isOpError(error, 'NotFound')) return;
      this.#dependencies.warn({ error, key: snapshot.name }, 'a snapshot could not be measured');
    });
  }

  /** @throws OpError NotFound when it is removed meanwhile */
  of(snapshot: Snapshot): Promise<Usage> {
    const known = this.#measuring.get(snapshot);
    if (known !== undefined) return known;
    const measuring = this.#measure(snapshot).finally(() => this.#measuring.delete(snapshot));
    this.#measuring.set(snapshot, measuring);
    return measuring;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled(this.#measuring.values());
  }

  async #measure(snapshot: Snapshot): Promise<Usage> {
    const { tree, metadata, driver } = this.#dependencies;
    const usage = await driver.usage(nodeOf(snapshot), this.#closing.signal);
    await metadata.update((tx) => {
      if (tree.get(snapshot.name) === snapshot) tree.change(tx, snapshot, { usage });
    });
    return usage;
  }
}
