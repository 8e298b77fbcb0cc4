import type { RequestContext } from '../base/context.ts';
import type { Labels } from '../base/labels.ts';
import type { WriteTx } from '../metadata/metadata.ts';

/** Keeps what it names. Without the label `containerd.io/gc.expire` it never ends by itself. */
export interface Lease {
  readonly id: string;
  /** Nanoseconds since the epoch. */
  readonly createdAt: bigint;
  readonly labels: Labels;
}

/** What a lease keeps. It need not be there. */
export interface Resource {
  /** `content`, `ingests`, `images` or `snapshots/SNAPSHOTTER`; inside also `mounts`. */
  readonly type: string;
  readonly id: string;
}

/** All in the namespace of the request. */
export interface LeaseManager {
  /** Labels are as long as one likes, as in containerd. @param id '' for one of our choice. @throws AlreadyExists */
  create(ctx: RequestContext, id: string, labels: Labels): Promise<Lease>;
  /** What only it kept stays until it is collected. @throws NotFound */
  delete(ctx: RequestContext, id: string): Promise<void>;
  /** By id. @throws InvalidArgument for a filter */
  list(ctx: RequestContext, filters: readonly string[]): Promise<readonly Lease[]>;
  /** Once more is no error. @throws NotFound; InvalidArgument or Unimplemented for the resource */
  addResource(ctx: RequestContext, id: string, resource: Resource): Promise<void>;
  /** One that it does not keep is no error. @throws NotFound; InvalidArgument or Unimplemented */
  deleteResource(ctx: RequestContext, id: string, resource: Resource): Promise<void>;
  /** @throws NotFound */
  listResources(ctx: RequestContext, id: string): Promise<readonly Resource[]>;
}

/** What the stores of other nouns need of leases: that of their request, within a batch of theirs. */
export interface LeaseBook {
  /** Does nothing for a request without a lease. @throws NotFound its lease is not there */
  require(ctx: RequestContext): void;
  /** As `require`, and the lease keeps the resource from here on. @throws NotFound */
  keep(tx: WriteTx, ctx: RequestContext, resource: Resource): void;
  /** The resource is gone: the request's lease, if any, forgets it. */
  forget(tx: WriteTx, ctx: RequestContext, resource: Resource): void;
}
