import type { RequestContext } from '../base/context.ts';
import type { Labels } from '../base/labels.ts';
import type { Node } from './collectible.ts';

/** Why a thing is kept, or that it is not. Times are in nanoseconds since the epoch. */
export interface Explanation {
  readonly node: Node;
  /** The shortest from each kind of root that keeps it, the shortest of all first; none: nothing keeps it. */
  readonly chains: readonly Chain[];
  /** Where nothing keeps it: since this moment at the earliest. It was made then, or a collection kept it. */
  readonly notBefore: bigint | undefined;
  /** Who collects, when that is somebody else than this daemon. */
  readonly collector: string;
}

/** References from a root to a thing. */
export interface Chain {
  /** `images`, `leases`, `containers`, `content`, `snapshots`, `ingests`; or `requests`, one that is under way. */
  readonly kind: string;
  /** The root's. */
  readonly createdAt: bigint;
  /** When the root ends being one; undefined: never by itself. */
  readonly expiresAt: bigint | undefined;
  /** A lease's: who made it, often. */
  readonly labels: Labels;
  /** The root first, the thing last. */
  readonly links: readonly Link[];
  /** How many are left out in the middle of them. */
  readonly omitted: number;
}

export interface Link {
  readonly node: Node;
  /** How the one before refers to it: `target`, `parent`, `snapshot`, `lease`, or a label; '' for the root. */
  readonly by: string;
}

/** Something that a collection would remove. Its namespace is '' for a blob that no namespace has any more. */
export interface Goes {
  readonly node: Node;
  /** What the disk gets back. A blob that several namespaces have goes with the last, and is counted once. */
  readonly bytes: number;
}

/** By type. */
export type Totals = ReadonlyMap<string, { readonly count: number; readonly bytes: number }>;

/** What an image or a lease keeps, by all that it refers to. */
export interface Kept {
  readonly node: Node;
  /** Bytes that only it keeps. */
  readonly unique: number;
  /** Bytes that others keep too. */
  readonly shared: number;
}

/** Parts with objects, and one last with the totals. */
export type PlanPart =
  | { readonly goes: readonly Goes[] }
  | { readonly totals: Totals; readonly without: readonly Kept[] };

export interface RunSummary {
  readonly totals: Totals;
  readonly elapsedMs: number;
  /** How long the run had the event loop, all its slices together, and the longest, in milliseconds. */
  readonly busyMs: number;
  readonly longestMs: number;
}

/** The collection, for whoever asks about it: by the same rules as it goes by, and nothing is changed. */
export interface Gc {
  /**
   * Of everything in the namespace that has this name: a digest or the beginning of one, a snapshot's
   * key, an ingest's ref, an image's name, a lease's or a container's id.
   * @throws OpError NotFound; InvalidArgument for a beginning that several have; FailedPrecondition when
   * nothing is collected here, and why; Unavailable when it changes too often
   */
  why(ctx: RequestContext, name: string): AsyncIterable<Explanation>;
  /**
   * What a run would remove now, in all namespaces.
   * @param without as if these images and leases of the namespace were removed first
   * @throws OpError NotFound for one of them; FailedPrecondition as `why`
   */
  plan(ctx: RequestContext, without: readonly string[]): AsyncIterable<PlanPart>;
  /**
   * Resolves when a run that began after the call has ended.
   * @throws OpError FailedPrecondition as `why`
   */
  run(ctx: RequestContext): Promise<RunSummary>;
}
