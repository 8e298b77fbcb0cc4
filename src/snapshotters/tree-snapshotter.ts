import type { Clock } from '../base/clock.ts';
import type { RequestContext } from '../base/context.ts';
import { unlessAborted } from '../base/abort.ts';
import { alreadyExists, OpError, quote } from '../base/errors.ts';
import { updateLabels } from '../base/fieldpaths.ts';
import { compileFilters, adaptSnapshot } from '../base/filters.ts';
import { withoutEmptyLabels, type Labels } from '../base/labels.ts';
import { KeyedLocks } from '../base/locks.ts';
import type { Along, MetadataStore, WriteTx } from '../metadata/metadata.ts';
import type { Accounts, SnapshotDriver, SnapshotNode, StoredSnapshot } from './driver.ts';
import { LateUsage } from './late-usage.ts';
import { recover } from './recover.ts';
import type { Info, Kind, Mount, Snapshotter, Usage } from './snapshotter.ts';
import { Trash } from './trash.ts';
import { infoOf, nodeOf, SnapshotTree, type Snapshot } from './tree.ts';

export interface TreeSnapshotterDependencies {
  readonly metadata: MetadataStore;
  readonly driver: SnapshotDriver;
  readonly accounts: Accounts;
  readonly clock: Clock;
  /** How long there is quiet before usages that were counted are checked. */
  readonly quietMs?: number;
  readonly warn: (fields: Record<string, unknown>, message: string) => void;
}

/**
 * The only Snapshotter: the tree, a driver's directories and the trash, and the order between them.
 *
 * Prepare and View: directories and record side by side where start-up can make the directories again,
 * else the directory first. A crash leaves either without the other: start-up throws a directory
 * without a record away, and makes missing empty directories again. Commit: the files on disk, then
 * the record. Remove: the record, then the directory (invariants 3 to 5 of docs/durability.md).
 */
export class TreeSnapshotter implements Snapshotter {
  readonly #tree: SnapshotTree;
  readonly #metadata: MetadataStore;
  readonly #driver: SnapshotDriver;
  readonly #accounts: Accounts;
  readonly #clock: Clock;
  readonly #trash: Trash;
  readonly #lateUsage: LateUsage;
  readonly #locks = new KeyedLocks();
  /** Tree and disk agree; whatever changes either waits for it. */
  readonly #recovered: Promise<void>;

  private constructor(tree: SnapshotTree, dependencies: TreeSnapshotterDependencies) {
    const { metadata, driver, accounts, clock, warn } = dependencies;
    this.#tree = tree;
    this.#metadata = metadata;
    this.#driver = driver;
    this.#accounts = accounts;
    this.#clock = clock;
    this.#trash = new Trash(driver, warn);
    this.#lateUsage = new LateUsage({ ...dependencies, tree });
    this.#recovered = recover(tree, driver, this.#trash, warn);
    // Whoever needs it awaits it; a failure is theirs to report.
    this.#recovered.catch(() => undefined);
  }

  /** Reads are answered when this resolves; changes when the disk was compared with the records too. */
  static async open(
    instance: string,
    dependencies: TreeSnapshotterDependencies,
  ): Promise<TreeSnapshotter> {
    return new TreeSnapshotter(
      await SnapshotTree.load(dependencies.metadata, instance),
      dependencies,
    );
  }

  /** Whether there is any snapshot with a name that begins so. */
  anyBelow(prefix: string): boolean {
    for (const { name } of this.#tree.all()) if (name.startsWith(prefix)) return true;
    return false;
  }

  /** Resolves when start-up's comparison of tree and disk is done. */
  get recovered(): Promise<void> {
    return this.#recovered;
  }

  async stat(_ctx: RequestContext, key: string): Promise<Info> {
    return this.#show(this.#tree.get(key));
  }

  async update(
    _ctx: RequestContext,
    change: { readonly name: string; readonly labels: Labels },
    fieldPaths: readonly string[],
    along?: Along,
  ): Promise<Info> {
    return this.#metadata.update((tx) => {
      const snapshot = this.#tree.get(change.name);
      const labels = updateLabels(snapshot.labels, change.labels, fieldPaths);
      this.#tree.change(tx, snapshot, { labels, updatedAt: this.#clock.now() });
      along?.(tx);
      return this.#show(snapshot);
    });
  }

  async usage(ctx: RequestContext, key: string): Promise<Usage> {
    const snapshot = this.#tree.get(key);
    if (snapshot.usage !== undefined) return snapshot.usage;
    if (snapshot.kind === 'view') return { inodes: 0, size: 0 };
    await this.#recovered;
    const { kind } = snapshot;
    try {
      if (kind === 'committed')
        return await unlessAborted(ctx.signal, this.#lateUsage.of(snapshot));
      return await this.#driver.usage(nodeOf(snapshot), ctx.signal);
    } catch (error) {
      // Removed or committed while it was being measured: answer for what is there now.
      const now = this.#tree.find(key);
      if (now === snapshot && now.kind === kind) throw error;
      return this.usage(ctx, key);
    }
  }

  async mounts(_ctx: RequestContext, key: string): Promise<readonly Mount[]> {
    const snapshot = this.#tree.get(key);
    if (snapshot.kind === 'committed') {
      throw new OpError(
        'FailedPrecondition',
        `snapshot ${quote(key)} is committed and has no mounts: prepare or view a child of it`,
      );
    }
    const node = nodeOf(snapshot);
    if (this.#driver.mountsNeedList?.(node) === true) await this.#recovered;
    return this.#driver.mounts(node);
  }

  prepare(
    _ctx: RequestContext,
    key: string,
    parent: string,
    labels: Labels,
    along?: Along,
  ): Promise<readonly Mount[]> {
    return this.#create('active', key, parent, labels, along);
  }

  view(
    _ctx: RequestContext,
    key: string,
    parent: string,
    labels: Labels,
    along?: Along,
  ): Promise<readonly Mount[]> {
    return this.#create('view', key, parent, labels, along);
  }

  // oxlint-disable-next-line max-params -- those of containerd's Commit, and the hook
  async commit(
    ctx: RequestContext,
    name: string,
    key: string,
    labels: Labels,
    parent: string,
    along?: Along,
  ): Promise<void> {
    requireName(name);
    await this.#recovered;
    await this.#locks.with([key, name], async () => {
      // In this order the codes are containerd's: key missing, name taken, key of another kind.
      this.#tree.get(key);
      await this.#refuseTakenName(name);
      const snapshot = this.#activeToCommit(key);
      const newParent = this.#parentAtCommit(snapshot, parent);
      using _hold = newParent === undefined ? undefined : this.#tree.holdAsParent(newParent);
      const final = nodeOf({ ...snapshot, parent: newParent });
      const counted = this.#accounts.take(this.#driver.mounts(nodeOf(snapshot)));
      const { usage, isToBeChecked } = await this.#driver.seal(final, counted, ctx.signal);
      await this.#metadata.update((tx) => {
        const now = this.#clock.now();
        this.#tree.change(tx, snapshot, {
          kind: 'committed',
          name,
          parent: newParent,
          labels: withoutEmptyLabels(labels),
          createdAt: now,
          updatedAt: now,
          usage,
        });
        along?.(tx);
      });
      this.#driver.committed?.(nodeOf(snapshot));
      if (usage === undefined) this.#lateUsage.begin(snapshot);
      else this.#lateUsage.committed(snapshot, isToBeChecked);
    });
  }

  async remove(ctx: RequestContext, key: string, along?: Along): Promise<void> {
    await this.#recovered;
    await this.#locks.with([key], async () => {
      const id = await this.#metadata.update(
        (tx) => {
          const snapshot = this.#tree.get(key);
          if (snapshot.children > 0) throw this.#stillHasChildren(snapshot);
          this.#tree.remove(tx, snapshot);
          along?.(tx);
          return snapshot.id;
        },
        { frees: true },
      );
      this.#trash.throwAway(id);
    });
    if (this.#driver.removesAtOnce === true) await this.#trash.emptied(ctx.signal);
  }

  /** At this moment, as the records have them. */
  names(): Iterable<string> {
    return this.#tree.names();
  }
  /** All of them, where they are; taken over several turns, in which they come and go. */
  *stored(): Iterable<StoredSnapshot> {
    for (const snapshot of this.#tree.all()) {
      const node = nodeOf(snapshot);
      const places = this.#driver.keepsDirectory(node) ? this.#driver.placesOf(node) : undefined;
      yield { ...infoOf(snapshot), id: snapshot.id, places };
    }
  }
  find(name: string): Info | undefined {
    const snapshot = this.#tree.find(name);
    return snapshot === undefined ? undefined : infoOf(snapshot);
  }

  /**
   * Takes a snapshot away as a part of a collector's batch, at once; records and disk were compared.
   * @returns throws its directory away, once the batch is on disk; undefined when it has children, or
   * a request is at work on it: then it stays
   */
  discard(tx: WriteTx, name: string): (() => void) | undefined {
    const snapshot = this.#tree.find(name);
    if (snapshot === undefined || snapshot.children > 0 || this.#locks.isHeld(name)) {
      return undefined;
    }
    this.#tree.remove(tx, snapshot);
    return () => this.#trash.throwAway(snapshot.id);
  }

  async *walk(_ctx: RequestContext, filters: readonly string[]): AsyncIterable<Info> {
    const matches = await compileFilters(filters);
    for (const snapshot of this.#tree.all()) {
      const info = this.#show(snapshot);
      if (matches(adaptSnapshot(info))) yield info;
    }
  }

  async cleanup(ctx: RequestContext): Promise<void> {
    await this.#recovered;
    await this.#trash.emptied(ctx.signal);
    await this.#driver.settled?.();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#recovered.catch(() => undefined);
    await this.#lateUsage[Symbol.asyncDispose]();
    await this.#trash[Symbol.asyncDispose]();
    await this.#driver[Symbol.asyncDispose]();
  }

  async #create(
    kind: Kind,
    key: string,
    parentName: string,
    labels: Labels,
    along: Along | undefined,
  ): Promise<readonly Mount[]> {
    requireName(key);
    await this.#recovered;
    return this.#locks.with([key], async () => {
      const parent = parentName === '' ? undefined : this.#committedParent(parentName);
      await this.#refuseTakenName(key);
      using _hold = parent === undefined ? undefined : this.#tree.holdAsParent(parent);
      const now = this.#clock.now();
      const snapshot: Snapshot = {
        id: this.#tree.nextId(),
        kind,
        name: key,
        parent,
        labels: withoutEmptyLabels(labels),
        createdAt: now,
        updatedAt: now,
        usage: undefined,
        children: 0,
      };
      const node = nodeOf(snapshot);
      await this.#makeAndRecord(snapshot, node, along);
      return this.#driver.mounts(node);
    });
  }

  /** Both or neither. */
  async #makeAndRecord(
    snapshot: Snapshot,
    node: SnapshotNode,
    along: Along | undefined,
  ): Promise<void> {
    const record = (): Promise<ReturnType<Along> | undefined> =>
      this.#metadata.update((tx) => {
        this.#tree.add(tx, snapshot);
        return along?.(tx);
      });
    const making = this.#driver.create(node);
    const recording = this.#driver.repairsWhole(node) ? record() : making.then(record);
    const [made, recorded] = await Promise.allSettled([making, recording]);
    if (made.status === 'fulfilled' && recorded.status === 'fulfilled') return;
    if (recorded.status === 'fulfilled') {
      const added = this.#tree.get(snapshot.name);
      await this.#metadata.update(
        (tx) => {
          this.#tree.remove(tx, added);
          recorded.value?.(tx);
        },
        { frees: true },
      );
    }
    this.#trash.throwAway(node.id);
    throw made.status === 'rejected' ? made.reason : (recorded as PromiseRejectedResult).reason;
  }

  #show(snapshot: Snapshot): Info {
    const info = infoOf(snapshot);
    const shown = this.#driver.shownLabels?.(nodeOf(snapshot));
    return shown === undefined ? info : { ...info, labels: new Map([...info.labels, ...shown]) };
  }

  #committedParent(name: string): Snapshot {
    const parent = this.#tree.get(name);
    if (parent.kind !== 'committed') {
      throw new OpError(
        'InvalidArgument',
        `parent ${quote(name)} is ${parent.kind}, not committed`,
      );
    }
    return parent;
  }

  #activeToCommit(key: string): Snapshot {
    const snapshot = this.#tree.get(key);
    if (snapshot.kind !== 'active') {
      throw new OpError(
        'FailedPrecondition',
        `snapshot ${quote(key)} is ${snapshot.kind}, only an active one can be committed`,
      );
    }
    return snapshot;
  }

  #parentAtCommit(snapshot: Snapshot, parentName: string): Snapshot | undefined {
    if (parentName === '' || snapshot.parent?.name === parentName) return snapshot.parent;
    if (snapshot.parent !== undefined) {
      throw new OpError(
        'InvalidArgument',
        `snapshot ${quote(snapshot.name)} has the parent ${quote(snapshot.parent.name)}, it cannot be rebased to ${quote(parentName)}`,
      );
    }
    const parent = this.#tree.get(parentName);
    if (parent.kind !== 'committed') {
      throw new OpError(
        'FailedPrecondition',
        `parent ${quote(parentName)} is ${parent.kind}, not committed`,
      );
    }
    if (this.#driver.rebases !== true) {
      throw new OpError(
        'FailedPrecondition',
        `snapshot ${quote(snapshot.name)} was prepared without a parent and has none of its files: this snapshotter cannot rebase it to ${quote(parentName)}; prepare it on that parent`,
      );
    }
    return parent;
  }

  /** "Already exists" is an answer callers build on, so it waits until what is there cannot be lost. */
  async #refuseTakenName(name: string): Promise<void> {
    if (this.#tree.find(name) === undefined) return;
    await this.#metadata.settled();
    if (this.#tree.find(name) !== undefined) throw alreadyExists(`snapshot ${quote(name)}`);
  }

  #stillHasChildren(snapshot: Snapshot): OpError {
    const names = this.#tree.childrenOf(snapshot, 3).map(quote).join(', ');
    return new OpError(
      'FailedPrecondition',
      `cannot remove snapshot ${quote(snapshot.name)}: it has ${snapshot.children} children: ${names}`,
    );
  }
}

function requireName(name: string): void {
  if (name === '') throw new OpError('InvalidArgument', 'a snapshot needs a key: it is empty');
}
