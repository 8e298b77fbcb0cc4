import type { RequestContext } from '../base/context.ts';
import type { Digest } from '../base/digest.ts';
import { OpError, quote } from '../base/errors.ts';
import { UNCOMPRESSED_LABEL, type Labels } from '../base/labels.ts';
import type { ContentStore } from '../content/content.ts';
import type { Applier } from '../diff/diff.ts';
import { unpack } from '../diff/unpack.ts';
import { PARENT_CHAIN_ID } from '../snapshotters/driver.ts';
import type { Snapshotter } from '../snapshotters/snapshotter.ts';
import { indexDockerArchive } from './docker-archive.ts';
import {
  childrenOf,
  countedParts,
  isConfig,
  isIndex,
  isLayer,
  isManifest,
  isRecord,
  OCI_INDEX,
  readConfig,
  referenceLabels,
  textOf,
  type Child,
} from './oci.ts';
import { PlatformOrder } from './platforms.ts';
import { readArchive } from './read-archive.ts';
import type { ImageDestination, ImportArchive } from './transfer.ts';

const LAYOUT_VERSION = '1.0.0';

/** Where images are unpacked. */
export interface Unpacker {
  /** Its name in the config. */
  readonly name: string;
  readonly snapshotter: Snapshotter;
  readonly applier: Applier;
  readonly canRebase: boolean;
}

/**
 * Puts an archive's blobs into the store.
 * @returns its index
 * @throws OpError InvalidArgument; DataLoss
 */
export async function storeArchive(
  ctx: RequestContext,
  content: ContentStore,
  archive: ImportArchive,
): Promise<Child> {
  const contents = await readArchive(ctx, content, archive);
  const { layout, manifests, blobs } = contents;
  const version = isRecord(layout) ? textOf(layout['imageLayoutVersion']) : '';
  if (version === '') {
    if (!Array.isArray(manifests)) {
      throw new OpError(
        'InvalidArgument',
        'unrecognized image format: the archive has neither oci-layout nor manifest.json',
      );
    }
    return indexDockerArchive(ctx, content, contents, archive.compressLayers);
  }
  if (version !== LAYOUT_VERSION) {
    throw new OpError('InvalidArgument', `archive: unsupported OCI version ${quote(version)}`);
  }
  const index = blobs.get('index.json');
  if (index === undefined) {
    throw new OpError('InvalidArgument', `archive: no index.json in OCI layout ${version}`);
  }
  return { ...index, mediaType: OCI_INDEX, annotations: new Map(), platform: undefined };
}

/** An image's config, and its layers as the manifest has them. */
interface Unpackable {
  readonly config: Child;
  readonly layers: readonly Child[];
}

/** What an index leads to. */
interface Found {
  /** The images that it names. */
  readonly named: readonly Child[];
  readonly unpackable: readonly Unpackable[];
}

/**
 * Labels what is wanted below an index with what it refers to: one batch, that a crash leaves whole or not
 * at all.
 * @throws OpError NotFound: a blob, or nothing is wanted; InvalidArgument; ResourceExhausted: too much
 */
export async function labelTree(
  ctx: RequestContext,
  content: ContentStore,
  index: Child,
  destination: ImageDestination,
): Promise<Found> {
  const walk = new Walk(ctx, content, destination);
  await walk.visit([index]);
  if (walk.isEmpty) {
    throw new OpError('NotFound', 'the archive has no image for the platforms that are wanted');
  }
  await walk.label();
  return { named: await childrenOf(ctx, content, index), unpackable: [...walk.unpackable] };
}

class Walk {
  readonly #ctx: RequestContext;
  readonly #content: ContentStore;
  readonly #destination: ImageDestination;
  readonly #order: PlatformOrder;
  readonly #labels = new Map<Digest, ReturnType<typeof referenceLabels>>();
  readonly #unpackable = new Map<Digest, Unpackable>();
  #count = 0;
  #isEmpty = true;

  constructor(ctx: RequestContext, content: ContentStore, destination: ImageDestination) {
    this.#ctx = ctx;
    this.#content = content;
    this.#destination = destination;
    this.#order = new PlatformOrder(destination.platforms);
  }

  get isEmpty(): boolean {
    return this.#isEmpty;
  }

  get unpackable(): Iterable<Unpackable> {
    return this.#unpackable.values();
  }

  async visit(descriptors: readonly Child[]): Promise<void> {
    this.#count = countedParts(this.#count, descriptors);
    for (const descriptor of descriptors) {
      this.#ctx.signal.throwIfAborted();
      await this.visit(await this.#wantedOf(descriptor));
    }
  }

  async label(): Promise<void> {
    await Promise.all(
      [...this.#labels].map(([digest, labels]) =>
        this.#content.update(
          this.#ctx,
          { digest, labels },
          [...labels.keys()].map((key) => `labels.${key}`),
        ),
      ),
    );
  }

  async #wantedOf(parent: Child): Promise<readonly Child[]> {
    const children = await childrenOf(this.#ctx, this.#content, parent);
    // All of them, wanted or not: what comes later is kept then.
    if (children.length > 0) this.#labels.set(parent.digest, referenceLabels(children));
    const wanted = this.#limited(parent, this.#filtered(parent, children));
    if (wanted.length > 0) this.#isEmpty = false;
    if (isManifest(parent.mediaType)) {
      const layers = wanted.filter(({ mediaType }) => isLayer(mediaType));
      const config = wanted.find(({ mediaType }) => isConfig(mediaType));
      if (config !== undefined && layers.length > 0) {
        this.#unpackable.set(config.digest, { config, layers });
      }
    }
    return wanted;
  }

  #filtered(parent: Child, children: readonly Child[]): readonly Child[] {
    if (!this.#destination.allMetadata) {
      return children.filter(
        ({ platform }) => platform === undefined || this.#order.matches(platform),
      );
    }
    const { mediaType, platform } = parent;
    const isWanted = platform === undefined || this.#order.matches(platform);
    if (isWanted || !isManifest(mediaType)) return children;
    return children.filter((child) => isConfig(child.mediaType));
  }

  #limited({ mediaType, digest }: Child, children: readonly Child[]): readonly Child[] {
    const { manifestLimit } = this.#destination;
    if (manifestLimit === 0 || !isIndex(mediaType)) return children;
    if (children.length === 0) {
      throw new OpError('NotFound', `index ${digest}: no manifest for the platforms wanted`);
    }
    return this.#order.sorted(children).slice(0, manifestLimit);
  }
}

/**
 * Unpacks an image, and labels what refers to the snapshots: the config, and layers whose diff ID was seen.
 * @throws OpError as `unpack`; InvalidArgument: layers and diff IDs are not as many
 */
export async function unpackImage(
  ctx: RequestContext,
  content: ContentStore,
  { config, layers }: Unpackable,
  { name, ...engine }: Unpacker,
): Promise<void> {
  const { diffIds, rootfsType } = await readConfig(ctx, content, config.digest);
  if (diffIds.length !== layers.length) {
    throw new OpError(
      'InvalidArgument',
      `image config ${config.digest}: ${diffIds.length} diff IDs for ${layers.length} layers`,
    );
  }
  if (rootfsType !== '' && rootfsType !== 'layers') return;
  const labels: { readonly digest: Digest; readonly key: string; readonly value: string }[] = [];
  const top = await unpack(ctx, {
    ...engine,
    layers: diffIds.flatMap((diffId, at) => {
      const descriptor = layers[at];
      if (descriptor === undefined) return [];
      return [{ descriptor, diffId, labels: snapshotLabels(descriptor.annotations) }];
    }),
    verified: ({ descriptor, diffId }) =>
      labels.push({ digest: descriptor.digest, key: UNCOMPRESSED_LABEL, value: diffId }),
  });
  labels.push({
    digest: config.digest,
    key: `containerd.io/gc.ref.snapshot.${name}`,
    value: top,
  });
  await Promise.all(
    labels.map(({ digest, key, value }) =>
      content.update(ctx, { digest, labels: new Map([[key, value]]) }, [`labels.${key}`]),
    ),
  );
}

/** What an image says of a layer's snapshot, as containerd takes it over; how it is unpacked is not the image's affair. */
const snapshotLabels = (annotations: Labels): Labels =>
  new Map(
    [...annotations].filter(
      ([key]) => key.startsWith('containerd.io/snapshot/') && key !== PARENT_CHAIN_ID,
    ),
  );
