import type { RequestContext } from '../base/context.ts';
import { parseDigest, type Digest } from '../base/digest.ts';
import { notFound, OpError, quote } from '../base/errors.ts';
import { updateLabels } from '../base/fieldpaths.ts';
import { adaptImage, compileFilters } from '../base/filters.ts';
import { requireNamespace } from '../base/identifiers.ts';
import { checkLabels, labelsFromPairs, withoutEmptyLabels } from '../base/labels.ts';
import {
  EXPIRE_LABEL,
  type Collectible,
  type Discarded,
  type Node,
  type Vertex,
} from '../gc/collectible.ts';
import type { WriteTx } from '../metadata/metadata.ts';
import { create, labelsToRecord, NamespacedRecords } from '../metadata/namespaced-records.ts';
import type { Image, ImageDraft, ImageStore, ImageUpdate, Target } from './image.ts';
import type { Books } from '../namespaces/books.ts';

type Pairs = readonly (readonly [string, string])[];

interface ImageRecord {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Pairs;
  readonly labels?: Pairs;
  readonly created: string;
  readonly updated: string;
}

type Dependencies = Books;

/** Each change is one batch: the image, its namespace, the lease. A crash leaves all of it or nothing. */
export class LocalImageStore implements ImageStore, Collectible {
  readonly type = 'images';
  readonly #images: NamespacedRecords<Image>;
  readonly #dependencies: Dependencies;

  private constructor(images: NamespacedRecords<Image>, dependencies: Dependencies) {
    this.#images = images;
    this.#dependencies = dependencies;
    dependencies.namespaces.addOccupant((name) => (images.any(name) ? 'images' : undefined));
  }

  static async open(dependencies: Dependencies): Promise<LocalImageStore> {
    const images = await NamespacedRecords.load<Image>(dependencies.metadata, 'image', {
      encode: toRecord,
      decode: (value, name) => fromRecord(value as ImageRecord, name),
    });
    return new LocalImageStore(images, dependencies);
  }

  async get(ctx: RequestContext, name: string): Promise<Image> {
    return this.#get(requireNamespace(ctx), name);
  }

  async list(ctx: RequestContext, filters: readonly string[]): Promise<readonly Image[]> {
    const namespace = requireNamespace(ctx);
    const matches = await compileFilters(filters);
    return this.#images.sorted(namespace).filter((image) => matches(adaptImage(image)));
  }

  async create(ctx: RequestContext, draft: ImageDraft): Promise<Image> {
    const namespace = requireNamespace(ctx);
    const { metadata, clock, gc, events } = this.#dependencies;
    check(draft);
    const now = clock.now();
    const image = normal({ ...draft, createdAt: now, updatedAt: now });
    await create(metadata, (tx) => {
      this.#keep(tx, ctx, image);
      this.#images.add(tx, namespace, image.name, image);
      gc.touch({ type: this.type, namespace, key: image.name }, tx);
    });
    events.publish(namespace, { type: 'ImageCreate', name: image.name, labels: image.labels });
    return image;
  }

  async update(
    ctx: RequestContext,
    change: ImageUpdate,
    fieldPaths: readonly string[],
  ): Promise<Image> {
    const namespace = requireNamespace(ctx);
    const { metadata, clock, gc, events } = this.#dependencies;
    if (change.name === '') throw new OpError('InvalidArgument', 'image name must not be empty');
    const image = await metadata.update((tx) => {
      const changed = applied(this.#get(namespace, change.name), change, fieldPaths);
      check(changed);
      const updated = normal({ ...changed, updatedAt: clock.now() });
      this.#keep(tx, ctx, updated);
      this.#images.put(tx, namespace, updated.name, updated);
      gc.touch({ type: this.type, namespace, key: updated.name }, tx);
      gc.freed(tx);
      return updated;
    });
    events.publish(namespace, { type: 'ImageUpdate', name: image.name, labels: image.labels });
    return image;
  }

  async delete(ctx: RequestContext, name: string, target: Digest | undefined): Promise<void> {
    const namespace = requireNamespace(ctx);
    const { metadata, leases, gc, events } = this.#dependencies;
    await metadata.update(
      (tx) => {
        const image = this.#get(namespace, name);
        if (target !== undefined && image.target.digest !== target) {
          throw notFound(`image ${quote(name)} has the target ${image.target.digest}, ${target}`);
        }
        this.#images.delete(tx, namespace, name);
        leases.forget(tx, ctx, { type: 'images', id: name });
        gc.freed(tx);
      },
      { frees: true },
    );
    events.publish(namespace, { type: 'ImageDelete', name });
  }

  *nodes(): Iterable<Node> {
    for (const [namespace, key] of this.#images.names()) yield { type: this.type, namespace, key };
  }

  find(namespace: string, key: string): Vertex | undefined {
    const image = this.#images.get(namespace, key);
    if (image === undefined) return undefined;
    const target = { type: 'content', namespace, key: image.target.digest };
    const { createdAt, labels } = image;
    return { root: 'until gc.expire', createdAt, labels, refersTo: [target] };
  }

  discard(tx: WriteTx, namespace: string, key: string): Discarded | undefined {
    if (this.#images.get(namespace, key) === undefined) return undefined;
    this.#images.delete(tx, namespace, key);
    return () => this.#dependencies.events.publish(namespace, { type: 'ImageDelete', name: key });
  }

  #keep(tx: WriteTx, ctx: RequestContext, image: Image): void {
    const { namespaces, leases } = this.#dependencies;
    namespaces.ensure(tx, requireNamespace(ctx));
    leases.require(ctx);
    // Only an image that ends by itself needs a lease meanwhile; any other keeps itself.
    if (image.labels.has(EXPIRE_LABEL)) leases.keep(tx, ctx, { type: 'images', id: image.name });
  }

  /** @throws OpError NotFound */
  #get(namespace: string, name: string): Image {
    const image = this.#images.get(namespace, name);
    if (image === undefined) throw notFound(`image ${quote(name)}`);
    return image;
  }
}

/** @throws OpError InvalidArgument for a field path, or where it needs a target and there is none */
function applied(image: Image, change: ImageUpdate, fieldPaths: readonly string[]): Image {
  const paths = fieldPaths.length === 0 ? ['labels', 'target'] : fieldPaths;
  let { labels, target } = image;
  for (const path of paths) {
    if (path === 'target') {
      target = requireTarget(change);
    } else if (path === 'annotations' || path.startsWith('annotations.')) {
      const given = requireTarget(change).annotations;
      const labelPath = path.replace('annotations', 'labels');
      target = { ...target, annotations: updateLabels(target.annotations, given, [labelPath]) };
    } else if (path === 'labels' || path.startsWith('labels.')) {
      labels = updateLabels(labels, change.labels, [path]);
    } else {
      throw new OpError(
        'InvalidArgument',
        `image ${quote(image.name)}: field path ${quote(path)} cannot be updated, use target, labels, labels.KEY, annotations or annotations.KEY`,
      );
    }
  }
  return { ...image, labels, target };
}

function requireTarget({ name, target }: ImageUpdate): Target {
  if (target !== undefined) return target;
  throw new OpError('InvalidArgument', `image ${quote(name)} has no target`);
}

/** @throws OpError InvalidArgument */
function check({ name, target, labels }: ImageDraft): void {
  if (name === '') throw new OpError('InvalidArgument', 'image name must not be empty');
  checkLabels(labels);
  if (target.size <= 0) {
    throw new OpError('InvalidArgument', `image ${quote(name)}: target size must be positive`);
  }
  if (target.mediaType === '') {
    throw new OpError('InvalidArgument', `image ${quote(name)}: target has no media type`);
  }
}

const normal = (image: Image): Image => ({ ...image, labels: withoutEmptyLabels(image.labels) });

function toRecord({ target, labels, createdAt, updatedAt }: Image): ImageRecord {
  const { mediaType, digest, size, annotations } = target;
  return {
    mediaType,
    digest,
    size,
    ...(annotations.size === 0 ? {} : { annotations: [...annotations] }),
    ...labelsToRecord(labels),
    created: String(createdAt),
    updated: String(updatedAt),
  };
}

function fromRecord(record: ImageRecord, name: string): Image {
  const { mediaType, digest, size, annotations, labels, created, updated } = record;
  return {
    name,
    target: {
      mediaType,
      digest: parseDigest(digest),
      size,
      annotations: labelsFromPairs(annotations),
    },
    labels: labelsFromPairs(labels),
    createdAt: BigInt(created),
    updatedAt: BigInt(updated),
  };
}
