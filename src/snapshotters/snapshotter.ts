import type { RequestContext } from '../base/context.ts';
import type { Labels } from '../base/labels.ts';
import type { Along } from '../metadata/metadata.ts';

export type Kind = 'view' | 'active' | 'committed';

/** A mount as containerd's clients perform it: type, source and options, without a target. */
export interface Mount {
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/** size: allocated bytes (st_blocks × 512); both without the parent's share. */
export interface Usage {
  readonly inodes: number;
  readonly size: number;
}

export interface Info {
  readonly kind: Kind;
  readonly name: string;
  /** Name of the parent, '' for none. */
  readonly parent: string;
  readonly labels: Labels;
  /** Nanoseconds since the epoch. */
  readonly createdAt: bigint;
  readonly updatedAt: bigint;
}

/**
 * containerd's ten verbs over one tree of snapshots. Active and view snapshots are named by their key,
 * committed ones by their name; all share one name space. Names are arbitrary text and never part of
 * a path. `../shared/contract/CONTRACT.md` section 3 has every code; the ones below are all OpErrors.
 * `along` is for a decorator's own records: they share the batch of the snapshot's.
 */
export interface Snapshotter extends AsyncDisposable {
  /** @throws NotFound */
  stat(ctx: RequestContext, key: string): Promise<Info>;
  /**
   * Changes labels only. No field path: all labels are replaced.
   * @throws NotFound; InvalidArgument for a field path other than `labels` and `labels.KEY`
   */
  update(
    ctx: RequestContext,
    change: { readonly name: string; readonly labels: Labels },
    fieldPaths: readonly string[],
    along?: Along,
  ): Promise<Info>;
  /** Active: measured now. Committed: as frozen at Commit. View: 0/0. @throws NotFound */
  usage(ctx: RequestContext, key: string): Promise<Usage>;
  /** @throws NotFound; FailedPrecondition when committed */
  mounts(ctx: RequestContext, key: string): Promise<readonly Mount[]>;
  /**
   * @throws NotFound parent; InvalidArgument parent not committed, or no key; AlreadyExists key
   */
  prepare(
    ctx: RequestContext,
    key: string,
    parent: string,
    labels: Labels,
    along?: Along,
  ): Promise<readonly Mount[]>;
  view(
    ctx: RequestContext,
    key: string,
    parent: string,
    labels: Labels,
    along?: Along,
  ): Promise<readonly Mount[]>;
  /**
   * Durable when it resolves: neither the snapshot nor a byte of its files is lost by a power cut
   * (with `durability = "metadata"`: the snapshot only). A parent may be given only where the active
   * snapshot has none (a rebase, if the driver can), or has just that one.
   * @throws NotFound; AlreadyExists name; FailedPrecondition key not active, parent not committed, driver that
   * cannot rebase; InvalidArgument another parent than the present one, layers that do not fit their parent
   */
  commit(
    ctx: RequestContext,
    name: string,
    key: string,
    labels: Labels,
    parent: string,
    along?: Along,
  ): Promise<void>;
  /** The key is free when it resolves; the directory goes later. @throws NotFound; FailedPrecondition with children */
  remove(ctx: RequestContext, key: string, along?: Along): Promise<void>;
  /** Everything that matches any of the filters. @throws InvalidArgument */
  walk(ctx: RequestContext, filters: readonly string[]): AsyncIterable<Info>;
  /** Resolves when the directories of all that was removed before the call are gone. */
  cleanup(ctx: RequestContext): Promise<void>;
}
