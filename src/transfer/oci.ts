import type { RequestContext } from '../base/context.ts';
import { parseDigest, type Digest } from '../base/digest.ts';
import { messageOf, OpError } from '../base/errors.ts';
import { NO_LABELS, type Labels } from '../base/labels.ts';
import type { ContentStore } from '../content/content.ts';
import type { Target } from '../images/image.ts';
import { normalize, type ImagePlatform } from './platforms.ts';

/** A descriptor as OCI's descriptor.md and image-index.md have it. */
export interface Child extends Target {
  readonly platform: ImagePlatform | undefined;
}

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
export const DOCKER_CONFIG = 'application/vnd.docker.container.image.v1+json';
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const DOCKER_INDEX = 'application/vnd.docker.distribution.manifest.list.v2+json';
const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
const CHECKPOINTS = [
  'application/vnd.containerd.container.criu.checkpoint.criu.tar',
  'application/vnd.containerd.container.checkpoint.config.v1+proto',
];

export const isManifest = (mediaType: string): boolean =>
  mediaType === OCI_MANIFEST || mediaType === DOCKER_MANIFEST;
export const isIndex = (mediaType: string): boolean =>
  mediaType === OCI_INDEX || mediaType === DOCKER_INDEX;
export const isConfig = (mediaType: string): boolean =>
  mediaType === OCI_CONFIG || mediaType === DOCKER_CONFIG;
export const isLayer = (mediaType: string): boolean =>
  mediaType.startsWith('application/vnd.oci.image.layer.') ||
  /^application\/vnd\.docker\.image\.rootfs\.(foreign\.diff\.tar(\.gzip)?|diff\.tar(\.gzip|\.zstd)?)(\+.*)?$/.test(
    mediaType,
  );
export const isNonDistributable = (mediaType: string): boolean =>
  mediaType.startsWith('application/vnd.oci.image.layer.nondistributable.') ||
  mediaType.startsWith('application/vnd.docker.image.rootfs.foreign.');

/**
 * Of a document that is read whole: what registries must take at least.
 * @see OCI distribution specification, "Pushing Manifests"
 */
export const JSON_BYTES_MAX = 4 << 20;

/** Of all that an archive's images are made of, as containerd. */
const PARTS_MAX = 10_000;

/** How many parts it is with these. @throws OpError ResourceExhausted when that is too many */
export function countedParts(before: number, descriptors: readonly Child[]): number {
  const count = before + descriptors.length;
  if (count <= PARTS_MAX) return count;
  throw new OpError('ResourceExhausted', `the images are made of more than ${PARTS_MAX} parts`);
}

/**
 * What an image is made of: of a manifest its config and layers, of an index its manifests, else nothing.
 * @throws OpError NotFound; InvalidArgument: it is no such document
 */
export async function childrenOf(
  ctx: RequestContext,
  content: ContentStore,
  { mediaType, digest }: Target,
): Promise<readonly Child[]> {
  if (!isManifest(mediaType) && !isIndex(mediaType)) return [];
  const document = await readDocument(ctx, content, digest);
  const { mediaType: own, config, layers, manifests } = document;
  if (document['fsLayers'] !== undefined) throw bad(digest, 'it is of schema 1');
  if (isManifest(mediaType)) {
    if (manifests !== undefined || isIndex(String(own))) throw bad(digest, 'it is an index');
    return [parseChild(digest, config), ...listOf(layers).map((each) => parseChild(digest, each))];
  }
  if (config !== undefined || layers !== undefined || isManifest(String(own))) {
    throw bad(digest, 'it is a manifest');
  }
  return listOf(manifests).map((each) => parseChild(digest, each));
}

export interface ImageConfig {
  readonly platform: ImagePlatform;
  readonly rootfsType: string;
  readonly diffIds: readonly Digest[];
}

/** @throws OpError NotFound; InvalidArgument */
export async function readConfig(
  ctx: RequestContext,
  content: ContentStore,
  digest: Digest,
): Promise<ImageConfig> {
  const document = await readDocument(ctx, content, digest);
  const rootfs = isRecord(document['rootfs']) ? document['rootfs'] : {};
  return {
    platform: normalize(parsePlatform(document)),
    rootfsType: textOf(rootfs['type']),
    diffIds: listOf(rootfs['diff_ids']).map((id) => parseDigest(textOf(id))),
  };
}

type Document = Readonly<Record<string, unknown>>;

/** @throws OpError NotFound; InvalidArgument: too large, or no JSON object */
async function readDocument(
  ctx: RequestContext,
  content: ContentStore,
  digest: Digest,
): Promise<Document> {
  const { size } = await content.info(ctx, digest);
  if (size > JSON_BYTES_MAX) throw bad(digest, `${size} bytes are too many for a document`);
  const pieces: Uint8Array[] = [];
  for await (const piece of content.read(ctx, digest, 0, 0)) pieces.push(Uint8Array.from(piece));
  let document: unknown;
  try {
    document = JSON.parse(Buffer.concat(pieces).toString());
  } catch (error) {
    throw bad(digest, messageOf(error));
  }
  if (!isRecord(document)) throw bad(digest, 'it is no JSON object');
  return document;
}

const bad = (digest: Digest, reason: string): OpError =>
  new OpError('InvalidArgument', `content ${digest} is not what its media type says: ${reason}`);

export const isRecord = (value: unknown): value is Document =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A list that may be left out, as Go has it. */
export const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

export const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');

function parseChild(within: Digest, value: unknown): Child {
  if (!isRecord(value)) throw bad(within, 'a descriptor is missing');
  const { mediaType, digest, size, annotations, platform } = value;
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw bad(within, 'a descriptor has no size');
  }
  return {
    mediaType: textOf(mediaType),
    digest: parseDigest(textOf(digest)),
    size,
    annotations: parseAnnotations(annotations),
    platform: isRecord(platform) ? parsePlatform(platform) : undefined,
  };
}

function parseAnnotations(value: unknown): Labels {
  if (!isRecord(value)) return NO_LABELS;
  return new Map(Object.entries(value).map(([key, text]) => [key, textOf(text)]));
}

const parsePlatform = (value: Document): ImagePlatform => ({
  os: textOf(value['os']),
  architecture: textOf(value['architecture']),
  variant: textOf(value['variant']),
  osVersion: textOf(value['os.version']),
  osFeatures: listOf(value['os.features']).map(textOf),
});

/** The labels by which a blob refers to what it is made of. @see containerd, core/images, "ChildGCLabels" */
export function referenceLabels(children: readonly Child[]): Labels {
  const labels = new Map<string, string>();
  const counts = new Map<string, number>();
  for (const { mediaType, digest } of children) {
    const key = `containerd.io/gc.ref.content.${kindOf(mediaType)}`;
    const count = counts.get(key) ?? 0;
    counts.set(key, count + 1);
    labels.set(count > 0 || key.endsWith('.') ? `${key}${count}` : key, digest);
  }
  return labels;
}

function kindOf(mediaType: string): string {
  if (isConfig(mediaType) || CHECKPOINTS.includes(mediaType)) return 'config';
  if (isManifest(mediaType)) return 'm.';
  return isLayer(mediaType) ? 'l.' : '';
}

/** JSON as Go's encoder writes it, so that equal documents have equal digests. */
export const goJson = (value: unknown): Buffer =>
  Buffer.from(
    JSON.stringify(value).replace(
      /[<>&\u2028\u2029]/g,
      (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
    ),
  );

/** Fields in Go's order, and without those that are empty. */
export const descriptorJson = (child: Target | Child): object => {
  const { mediaType, digest, size, annotations } = child;
  const platform = 'platform' in child ? child.platform : undefined;
  const sorted = [...annotations].toSorted(([a], [b]) => (a < b ? -1 : 1));
  return {
    mediaType,
    digest,
    size,
    ...(sorted.length === 0 ? {} : { annotations: Object.fromEntries(sorted) }),
    ...(platform === undefined ? {} : { platform: platformJson(platform) }),
  };
};

const platformJson = (platform: ImagePlatform): object => ({
  architecture: platform.architecture,
  os: platform.os,
  ...(platform.osVersion === '' ? {} : { 'os.version': platform.osVersion }),
  ...(platform.osFeatures.length === 0 ? {} : { 'os.features': platform.osFeatures }),
  ...(platform.variant === '' ? {} : { variant: platform.variant }),
});
