import type { RequestContext } from '../base/context.ts';
import type { Labels } from '../base/labels.ts';
import type { WriteTx } from '../metadata/metadata.ts';

export interface Namespace {
  readonly name: string;
  readonly labels: Labels;
}

/** The namespaces themselves: the only noun that lies in none. */
export interface NamespaceStore {
  /** One that is not there has no labels, as containerd answers. */
  get(ctx: RequestContext, name: string): Promise<Namespace>;
  /** By name. */
  list(ctx: RequestContext): Promise<readonly Namespace[]>;
  /** @throws AlreadyExists; InvalidArgument for a name or a label */
  create(ctx: RequestContext, namespace: Namespace): Promise<Namespace>;
  /**
   * Changes labels only; one that is not there is made.
   * @throws InvalidArgument for a name, a label, or a field path other than `labels` and `labels.KEY`
   */
  update(
    ctx: RequestContext,
    namespace: Namespace,
    fieldPaths: readonly string[],
  ): Promise<Namespace>;
  /** @throws NotFound; FailedPrecondition while anything is in it, naming what */
  delete(ctx: RequestContext, name: string): Promise<void>;
}

/** What the stores of other nouns need of namespaces, within a batch of theirs. */
export interface NamespaceBook {
  has(name: string): boolean;
  /** What is made in a namespace makes it too. */
  ensure(tx: WriteTx, name: string): void;
  labelsOf(name: string): Labels;
  /**
   * A namespace stays while a noun has something in it.
   * @param occupant what it has in a namespace, as `images`; undefined for nothing
   */
  addOccupant(occupant: (name: string) => string | undefined): void;
}
