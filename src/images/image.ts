import type { RequestContext } from '../base/context.ts';
import type { Digest } from '../base/digest.ts';
import type { Labels } from '../base/labels.ts';

/** The blob that an image's name stands for; nobody checks that it is there. */
export interface Target {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly annotations: Labels;
}

export interface Image {
  readonly name: string;
  readonly target: Target;
  readonly labels: Labels;
  /** Nanoseconds since the epoch. */
  readonly createdAt: bigint;
  readonly updatedAt: bigint;
}

/** What a client says of an image. */
export type ImageDraft = Pick<Image, 'name' | 'target' | 'labels'>;

/** All in the namespace of the request. */
export interface ImageStore {
  /** @throws NotFound */
  get(ctx: RequestContext, name: string): Promise<Image>;
  /** By name. @throws InvalidArgument for a filter */
  list(ctx: RequestContext, filters: readonly string[]): Promise<readonly Image[]>;
  /** @throws AlreadyExists; InvalidArgument for a name, a label or the target; NotFound the lease */
  create(ctx: RequestContext, image: ImageDraft): Promise<Image>;
  /**
   * No field path: target and labels are replaced.
   * @throws NotFound; InvalidArgument as create, and for a field path other than `target`, `labels`,
   * `labels.KEY`, `annotations` and `annotations.KEY`
   */
  update(ctx: RequestContext, image: ImageUpdate, fieldPaths: readonly string[]): Promise<Image>;
  /** @param target stays, if given, with another digest. @throws NotFound */
  delete(ctx: RequestContext, name: string, target: Digest | undefined): Promise<void>;
}

/** An update that leaves the target alone need not have one. */
export interface ImageUpdate {
  readonly name: string;
  readonly labels: Labels;
  readonly target: Target | undefined;
}
