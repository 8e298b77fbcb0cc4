import type { RequestContext } from '../base/context.ts';
import type { Labels } from '../base/labels.ts';

/**
 * One mount of a list, each of which may build on those before it. Its type may have transformers in front,
 * as `format/mkdir/overlay`.
 */
export interface ListedMount {
  readonly type: string;
  readonly source: string;
  /** Below the place where the client mounts. */
  readonly target: string;
  readonly options: readonly string[];
}

/** A mount that was made for a client. */
export interface ActiveMount extends ListedMount {
  /** The directory it is mounted on; of type `loop`: a link to the device. */
  readonly mountPoint: string;
  /** Nanoseconds since the epoch. */
  readonly mountedAt: bigint;
}

/** What became of a list of mounts. */
export interface Activation {
  readonly name: string;
  /** The first of the list, which were made here. */
  readonly active: readonly ActiveMount[];
  /** The others, as the client is to make them. */
  readonly system: readonly ListedMount[];
  readonly labels: Labels;
}

export interface ActivateRequest {
  readonly name: string;
  readonly mounts: readonly ListedMount[];
  readonly labels: Labels;
  /** All are to be made here; the client gets one bind mount of the last. */
  readonly temporary: boolean;
}

/**
 * Makes the mounts that a client cannot make by itself. All in the namespace of the request; what is kept by
 * neither a lease, nor a label, nor a back reference is collected, and unmounted with that.
 */
export interface MountManager {
  /**
   * @throws Unimplemented where the client can make all mounts itself, or for a type that nobody here knows;
   * AlreadyExists; InvalidArgument for a name, a label or a mount; FailedPrecondition, NotFound, ... as the
   * kernel answered: nothing stays mounted then
   */
  activate(ctx: RequestContext, request: ActivateRequest): Promise<Activation>;
  /** @throws NotFound; FailedPrecondition in use: its name is free all the same, the mounts go later */
  deactivate(ctx: RequestContext, name: string): Promise<void>;
  /** @throws NotFound */
  info(ctx: RequestContext, name: string): Promise<Activation>;
  /** By name. @throws InvalidArgument for a filter */
  list(ctx: RequestContext, filters: readonly string[]): Promise<readonly Activation[]>;
}
