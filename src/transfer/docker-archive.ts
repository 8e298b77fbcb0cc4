import { randomUUID } from 'node:crypto';
import { Readable, pipeline } from 'node:stream';
import { createGzip } from 'node:zlib';
import type { RequestContext } from '../base/context.ts';
import { OpError, quote } from '../base/errors.ts';
import { NO_LABELS, UNCOMPRESSED_LABEL, type Labels } from '../base/labels.ts';
import type { ContentStore } from '../content/content.ts';
import { compressionOf } from '../diff/apply/inflate.ts';
import { BlobWriter } from './blob-writer.ts';
import { nameAnnotations } from './names.ts';
import {
  descriptorJson,
  DOCKER_CONFIG,
  DOCKER_MANIFEST,
  goJson,
  isRecord,
  listOf,
  OCI_INDEX,
  readConfig,
  textOf,
  type Child,
} from './oci.ts';
import type { ArchiveBlob, ArchiveContents } from './read-archive.ts';
import { normalizedReference } from './references.ts';

const PLAIN_LAYER = 'application/vnd.docker.image.rootfs.diff.tar';
const GZIP_LAYER = 'application/vnd.docker.image.rootfs.diff.tar.gzip';

/**
 * Writes the manifests and the index that an archive of `docker save` lacks: those that containerd writes, to
 * the byte.
 * @throws OpError InvalidArgument
 * @see Docker's image specification v1.2, "Combined Image JSON + Filesystem Changeset Format"
 */
export async function indexDockerArchive(
  ctx: RequestContext,
  content: ContentStore,
  contents: ArchiveContents,
  compressLayers: boolean,
): Promise<Child> {
  const blobs = withLinks(contents);
  const manifests: Child[] = [];
  for (const image of listOf(contents.manifests)) {
    const { Config, RepoTags, Layers } = isRecord(image) ? image : {};
    const config = find(blobs, 'config', textOf(Config));
    const layers: Child[] = [];
    for (const name of listOf(Layers)) {
      const plain = find(blobs, 'layer', textOf(name));
      layers.push(await layerOf(ctx, content, plain, compressLayers));
    }
    const manifest = await writeJson(ctx, content, DOCKER_MANIFEST, {
      schemaVersion: 2,
      mediaType: DOCKER_MANIFEST,
      config: descriptorJson(child(DOCKER_CONFIG, config)),
      layers: layers.map(descriptorJson),
    });
    const { platform } = await readConfig(ctx, content, config.digest);
    const tags = listOf(RepoTags).map((tag) => normalizedReference(textOf(tag)));
    const named = tags.map((tag) => new Map(nameAnnotations(tag)));
    for (const annotations of named.length === 0 ? [NO_LABELS] : named) {
      manifests.push({ ...manifest, annotations, platform });
    }
  }
  return writeJson(ctx, content, OCI_INDEX, {
    schemaVersion: 2,
    manifests: manifests.length === 0 ? null : manifests.map(descriptorJson),
  });
}

/** Layers that several images share are links to one of them. */
function withLinks({ blobs, links }: ArchiveContents): ReadonlyMap<string, ArchiveBlob> {
  const all = new Map(blobs);
  for (const [name, target] of links) {
    const blob = blobs.get(target);
    if (blob === undefined) {
      throw new OpError(
        'InvalidArgument',
        `archive: the link ${quote(name)} leads to ${quote(target)}, which is not in it`,
      );
    }
    all.set(name, blob);
  }
  return all;
}

function find(blobs: ReadonlyMap<string, ArchiveBlob>, what: string, name: string): ArchiveBlob {
  const blob = blobs.get(name);
  if (blob !== undefined) return blob;
  throw new OpError('InvalidArgument', `archive: its ${what} ${quote(name)} is not in it`);
}

const child = (mediaType: string, { digest, size }: ArchiveBlob): Child => ({
  mediaType,
  digest,
  size,
  annotations: NO_LABELS,
  platform: undefined,
});

/** A compressed layer that is there already stands for a plain one. */
async function layerOf(
  ctx: RequestContext,
  content: ContentStore,
  layer: ArchiveBlob,
  compressLayers: boolean,
): Promise<Child> {
  for await (const known of content.walk(ctx, [
    `labels."${UNCOMPRESSED_LABEL}"==${layer.digest}`,
  ])) {
    return child(await layerTypeOf(ctx, content, known), known);
  }
  const mediaType = await layerTypeOf(ctx, content, layer);
  if (!compressLayers || mediaType === GZIP_LAYER) return child(mediaType, layer);
  const labels = new Map([[UNCOMPRESSED_LABEL, layer.digest]]);
  return child(GZIP_LAYER, await compressed(ctx, content, layer, labels));
}

/** As containerd: whatever is compressed is called gzip. */
async function layerTypeOf(
  ctx: RequestContext,
  content: ContentStore,
  { digest, size }: ArchiveBlob,
): Promise<string> {
  if (size === 0) return PLAIN_LAYER;
  for await (const start of content.read(ctx, digest, 0, 4)) {
    return compressionOf(start) === 'none' ? PLAIN_LAYER : GZIP_LAYER;
  }
  return PLAIN_LAYER;
}

async function compressed(
  ctx: RequestContext,
  content: ContentStore,
  { digest }: ArchiveBlob,
  labels: Labels,
): Promise<ArchiveBlob> {
  await using blob = await BlobWriter.open(ctx, content, `compress-${randomUUID()}`);
  const gzip = createGzip();
  // Whoever iterates is told of errors.
  const plain = Readable.from(copies(content.read(ctx, digest, 0, 0)), { highWaterMark: 1 });
  pipeline(plain, gzip, () => undefined);
  for await (const chunk of gzip) await blob.write(chunk);
  return await blob.commit(labels);
}

/** A piece of the store is valid until the next is asked for; a stream reads ahead. */
async function* copies(pieces: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  for await (const piece of pieces) yield Uint8Array.from(piece);
}

async function writeJson(
  ctx: RequestContext,
  content: ContentStore,
  mediaType: string,
  document: object,
): Promise<Child> {
  const bytes = goJson(document);
  await using blob = await BlobWriter.open(ctx, content, `manifest-${randomUUID()}`);
  await blob.write(bytes);
  return child(mediaType, await blob.commit(NO_LABELS));
}
