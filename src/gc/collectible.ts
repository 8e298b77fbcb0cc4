import type { Labels } from '../base/labels.ts';
import type { WriteTx } from '../metadata/metadata.ts';

/** A thing that is collected or keeps others. The types are those of a lease's resources, and three more. */
export interface Node {
  /** `content`, `ingests`, `images`, `snapshots/SNAPSHOTTER`, `leases`, `containers` or `mounts`. */
  readonly type: string;
  readonly namespace: string;
  readonly key: string;
}

/** On leases and images: until when they keep themselves, as RFC 3339 has it. */
export const EXPIRE_LABEL = 'containerd.io/gc.expire';

/** Why a node is kept although nothing refers to it; a time is in nanoseconds since the epoch. */
export type RootRule =
  | 'always'
  | 'never'
  | 'until gc.expire'
  | 'with gc.root'
  | { readonly until: bigint };

/** A node as it is at this moment. */
export interface Vertex {
  readonly root: RootRule;
  /** Nanoseconds since the epoch. */
  readonly createdAt: bigint;
  readonly labels: Labels;
  /** What it refers to by itself, beside its labels. Taken once: a lease's thousands come as they are asked for. */
  readonly refersTo: Iterable<Node>;
}

/** Gone in memory, and in the batch: what is left to do once that is on disk. */
export type Discarded = () => void | Promise<void>;

/** What a noun implements to be collected. Nothing here waits: a turn of the event loop sees one state. */
export interface Collectible {
  readonly type: string;
  /** All of them; taken over several turns, in which they come and go. */
  nodes(): Iterable<Node>;
  /** @returns undefined when it is not there */
  find(namespace: string, key: string): Vertex | undefined;
  /** @returns undefined when it is not there, or something builds on it at this moment: then it stays */
  discard(tx: WriteTx, namespace: string, key: string): Discarded | undefined;
  /** What it takes on the disk; without it, nothing worth to be counted. */
  weigh?(namespace: string, key: string): Weight | Promise<Weight>;
  /** After a run: gives back what nobody refers to any more, below the nodes. @returns it, with its bytes */
  swept?(): Promise<ReadonlyMap<string, number>>;
  /** What `swept` would give back at this moment. */
  leftovers?(): Iterable<readonly [key: string, bytes: number]>;
}

export interface Weight {
  readonly bytes: number;
  /** Where the nodes of its key in several namespaces stand on the same bytes: these. They go with the last. */
  readonly namespaces?: readonly string[];
}

/**
 * What nouns tell the collector, each in the turn in which it changes what it has in memory.
 * @param tx the change's batch: should it be taken back, what refers to what is as before
 */
export interface GcNotes {
  /**
   * The node is new, changed, or referred to anew. A run under way keeps it, and what it refers to now;
   * it need not be there.
   */
  touch(node: Node, tx?: WriteTx): void;
  /** A request builds on the node: until it is disposed it is kept, with what it refers to. */
  hold(node: Node): Disposable;
  /** Something was removed, or refers to less: there may be something to collect. */
  freed(tx?: WriteTx): void;
}

/** For a request that wants what it removed to be collected before it is answered. */
export interface GcRuns {
  /** Resolves when a run that began after the call has ended. */
  collect(): Promise<unknown>;
}
