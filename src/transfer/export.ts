import { createHash } from 'node:crypto';
import type { RequestContext } from '../base/context.ts';
import { splitDigest, type Digest } from '../base/digest.ts';
import { isOpError, OpError } from '../base/errors.ts';
import type { ContentStore } from '../content/content.ts';
import {
  extendedHeader,
  FIELD,
  paddingOf,
  standIn,
  ustarHeader,
  type PaxRecord,
} from '../diff/compare/extended-header.ts';
import type { Image, Target } from '../images/image.ts';
import { IMAGE_NAME, nameAnnotations } from './names.ts';
import {
  childrenOf,
  countedParts,
  descriptorJson,
  goJson,
  isIndex,
  isManifest,
  isNonDistributable,
  OCI_INDEX,
  type Child,
} from './oci.ts';
import { ownPlatform, PlatformOrder } from './platforms.ts';
import { familiarReference } from './references.ts';
import type { ExportOptions } from './transfer.ts';

/** On a blob, and then on its descriptor: where it is from. */
const DISTRIBUTION_SOURCE = 'containerd.io/distribution.source';
/** What eleven octal digits hold. */
const FIELD_SIZE_MAX = 8 ** 11 - 1;

/** What is hashed in one turn of the event loop: that takes no longer than to send it. */
const PIECE_BYTES = 128 * 1024;

/** A member of the archive. */
interface Member {
  readonly name: string;
  readonly mode: number;
  readonly isFolder?: boolean;
  readonly size: number;
  readonly chunks: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/**
 * The archive of some images: an OCI image layout with Docker's manifest.json, member for member what
 * containerd makes of them. A chunk is valid until the next is asked for.
 * @throws OpError NotFound; InvalidArgument; DataLoss
 */
export async function* exportArchive(
  ctx: RequestContext,
  content: ContentStore,
  images: readonly Image[],
  options: ExportOptions,
): AsyncIterable<Uint8Array> {
  const members = new Members(ctx, content, options);
  for (const image of images) await members.add(image);
  for (const member of await members.sorted()) {
    yield headerOf(member);
    let size = 0;
    for await (const chunk of member.chunks()) {
      ctx.signal.throwIfAborted();
      size += chunk.length;
      yield chunk;
    }
    if (size !== member.size) {
      throw new OpError(
        'InvalidArgument',
        `${member.name} has ${size} bytes, its descriptor says ${member.size}`,
      );
    }
    yield Buffer.alloc(paddingOf(size));
  }
  yield Buffer.alloc(1024);
}

class Members {
  readonly #ctx: RequestContext;
  readonly #content: ContentStore;
  readonly #options: ExportOptions;
  readonly #order: PlatformOrder;
  readonly #all = new Map<string, Member>();
  readonly #algorithms = new Set<string>();
  readonly #index: Target[] = [];
  /** What Docker knows of: a manifest, and the names it has. */
  readonly #docker = new Map<Digest, { readonly manifest: Child; readonly names: string[] }>();
  /** The manifest that Docker takes for an index. */
  readonly #resolved = new Map<Digest, Digest | undefined>();
  #count = 0;

  constructor(ctx: RequestContext, content: ContentStore, options: ExportOptions) {
    this.#ctx = ctx;
    this.#content = content;
    this.#options = options;
    const { platforms } = options;
    this.#order = new PlatformOrder(platforms.length === 0 ? [ownPlatform()] : platforms);
  }

  async add({ name, target }: Image): Promise<void> {
    const annotations = new Map([...target.annotations, ...nameAnnotations(name)]);
    const named = { ...target, annotations };
    if (!(await this.#addSources(named))) return;
    this.#index.push(named);
    const { digest, mediaType } = target;
    let manifest: Digest | undefined = digest;
    if (isManifest(mediaType)) {
      const child = { ...named, platform: undefined };
      if (!this.#docker.has(digest)) {
        await this.#addTree([child]);
        this.#docker.set(digest, { manifest: child, names: [] });
      }
    } else if (isIndex(mediaType)) {
      if (!this.#resolved.has(digest)) this.#resolved.set(digest, await this.#addIndex(named));
      manifest = this.#resolved.get(digest);
    } else {
      throw new OpError(
        'InvalidArgument',
        `image ${name} is of the type ${mediaType}: only manifests may be exported`,
      );
    }
    const known = manifest === undefined ? undefined : this.#docker.get(manifest);
    known?.names.push(annotations.get(IMAGE_NAME) ?? '');
  }

  /** By name, as containerd has them. */
  async sorted(): Promise<readonly Member[]> {
    this.#put(file('oci-layout', 0o444, { imageLayoutVersion: '1.0.0' }));
    const manifests = this.#index.map(descriptorJson);
    const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests };
    this.#put(file('index.json', 0o644, index));
    if (!this.#options.skipDockerManifest && this.#docker.size > 0) {
      this.#put(file('manifest.json', 0o644, await this.#dockerManifest()));
    }
    if (this.#algorithms.size > 0) this.#put(folder('blobs/'));
    for (const algorithm of this.#algorithms) this.#put(folder(`blobs/${algorithm}/`));
    return [...this.#all.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @returns whether the blob is there: containerd leaves out an image without */
  async #addSources({ digest, annotations }: { digest: Digest; annotations: Map<string, string> }) {
    try {
      const { labels } = await this.#content.info(this.#ctx, digest);
      for (const [key, value] of labels) {
        if (key.startsWith(DISTRIBUTION_SOURCE)) annotations.set(key, value);
      }
      return true;
    } catch (error) {
      if (isOpError(error, 'NotFound')) return false;
      throw error;
    }
  }

  /** @returns the best manifest for the platform */
  async #addIndex(index: Target): Promise<Digest | undefined> {
    this.#addBlob(index);
    const children = await childrenOf(this.#ctx, this.#content, index);
    const fitting = children.filter(
      ({ platform }) => platform === undefined || this.#order.matches(platform),
    );
    await this.#addTree(this.#options.allPlatforms ? children : fitting);
    const [best] = this.#order.sorted(fitting);
    if (best === undefined) {
      throw new OpError('NotFound', `index ${index.digest}: no manifest found for platform`);
    }
    this.#docker.set(best.digest, { manifest: best, names: [] });
    return best.digest;
  }

  async #addTree(descriptors: readonly Child[]): Promise<void> {
    this.#count = countedParts(this.#count, descriptors);
    for (const descriptor of descriptors) {
      const children = await childrenOf(this.#ctx, this.#content, descriptor);
      this.#addBlob(descriptor);
      this.#algorithms.add(splitDigest(descriptor.digest).algorithm);
      await this.#addTree(children);
    }
  }

  #addBlob({ mediaType, digest, size }: Target): void {
    if (this.#options.skipNonDistributable && isNonDistributable(mediaType)) return;
    const chunks = (): AsyncIterable<Uint8Array> =>
      verified(digest, this.#content.read(this.#ctx, digest, 0, 0));
    this.#put({ name: blobName(digest), mode: 0o444, size, chunks });
  }

  /** The first of a name stays. */
  #put(member: Member): void {
    if (!this.#all.has(member.name)) this.#all.set(member.name, member);
  }

  async #dockerManifest(): Promise<object> {
    const entries: object[] = [];
    for (const { manifest, names } of this.#docker.values()) {
      const children = await childrenOf(this.#ctx, this.#content, manifest);
      const [config, ...layers] = children;
      if (config === undefined) continue;
      const tags = names.map(familiarReference);
      entries.push({
        Config: blobName(config.digest),
        RepoTags: tags.length === 0 ? null : tags,
        Layers: layers.length === 0 ? null : layers.map(({ digest }) => blobName(digest)),
      });
    }
    return entries;
  }
}

function blobName(digest: Digest): string {
  const { algorithm, hex } = splitDigest(digest);
  return `blobs/${algorithm}/${hex}`;
}

function file(name: string, mode: number, document: object): Member {
  const bytes = goJson(document);
  return { name, mode, size: bytes.length, chunks: () => [bytes] };
}

const folder = (name: string): Member => ({
  name,
  mode: 0o755,
  isFolder: true,
  size: 0,
  chunks: () => [],
});

/** @throws OpError DataLoss, after the last chunk */
async function* verified(
  digest: Digest,
  chunks: AsyncIterable<Uint8Array>,
): AsyncIterable<Uint8Array> {
  const { algorithm, hex } = splitDigest(digest);
  // OpenSSL has no blake3.
  const hash = algorithm === 'blake3' ? undefined : createHash(algorithm);
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
      const piece = chunk.subarray(at, at + PIECE_BYTES);
      hash?.update(piece);
      yield piece;
    }
  }
  if (hash === undefined || hash.digest('hex') === hex) return;
  throw new OpError('DataLoss', `content ${digest}: its bytes on disk have another digest`);
}

function headerOf({ name, mode, isFolder, size }: Member): Buffer {
  const records: PaxRecord[] = [];
  if (name.length > FIELD.name) records.push(['path', name]);
  if (size > FIELD_SIZE_MAX) records.push(['size', String(size)]);
  const header = ustarHeader({
    name: standIn(name),
    mode,
    size: size > FIELD_SIZE_MAX ? 0 : size,
    type: isFolder === true ? '5' : '0',
  });
  return records.length === 0 ? header : Buffer.concat([extendedHeader(records), header]);
}
