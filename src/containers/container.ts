import type { RequestContext } from '../base/context.ts';
import type { Labels } from '../base/labels.ts';
import type { Any } from '../events/event.ts';

/** What a container is made of, as a record: nothing here knows whether it runs. */
export interface Container {
  readonly id: string;
  readonly labels: Labels;
  readonly image: string;
  readonly runtime: { readonly name: string; readonly options: Any | undefined };
  readonly spec: Any | undefined;
  readonly snapshotter: string;
  readonly snapshotKey: string;
  readonly extensions: ReadonlyMap<string, Any>;
  readonly sandbox: string;
  /** Nanoseconds since the epoch. */
  readonly createdAt: bigint;
  readonly updatedAt: bigint;
}

export type ContainerDraft = Omit<Container, 'createdAt' | 'updatedAt'>;

/** All in the namespace of the request. */
export interface ContainerStore {
  /** @throws NotFound */
  get(ctx: RequestContext, id: string): Promise<Container>;
  /** By id. @throws InvalidArgument for a filter */
  list(ctx: RequestContext, filters: readonly string[]): Promise<readonly Container[]>;
  /** @throws AlreadyExists; InvalidArgument for an id, a label, or what it must have */
  create(ctx: RequestContext, container: ContainerDraft): Promise<Container>;
  /**
   * Changes labels, spec, extensions, image and snapshot key; no field path: all of them.
   * @throws NotFound; InvalidArgument as create, for another field path, or, without one, for another
   * snapshotter or runtime
   */
  update(
    ctx: RequestContext,
    container: ContainerDraft,
    fieldPaths: readonly string[],
  ): Promise<Container>;
  /** @throws NotFound */
  delete(ctx: RequestContext, id: string): Promise<void>;
}
