import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { background } from '../../src/base/context.ts';
import { parseDigest, type Digest } from '../../src/base/digest.ts';
import { isOpError, type OpError } from '../../src/base/errors.ts';
import type { Client } from '../support/client.ts';

const UPLOAD_BYTES = 1 << 20;

interface Layer {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly diffId: Digest;
  readonly size: number;
}

export interface Unpacked {
  /** Committed, one for each layer applied. */
  readonly chain: readonly string[];
  /** The active snapshot of a layer that was refused, and why. */
  readonly refused: { readonly key: string; readonly error: OpError | BadImage } | undefined;
}

/** An image that is refused before any layer is applied. */
export class BadImage extends Error {}

/**
 * What a client of a daemon does to unpack an image of an OCI layout: the blobs into the content store,
 * then layer by layer Prepare, Apply, Commit.
 */
export async function unpack(client: Client, layout: string, name: string): Promise<Unpacked> {
  const layers = await layersOf(layout);
  const chain: string[] = [];
  for (const [index, layer] of layers.entries()) {
    const key = `${name} extract ${index}`;
    const mounts = await client.snapshotter.prepare(background, key, chain.at(-1) ?? '', new Map());
    try {
      await upload(client, layout, layer);
      const applied = await client.applier.apply(background, layer, mounts);
      if (applied.digest !== layer.diffId) {
        throw new BadImage(`layer ${index}: its diff ID is ${applied.digest}`);
      }
    } catch (error) {
      if (isOpError(error) || error instanceof BadImage) return { chain, refused: { key, error } };
      throw error;
    }
    const committed = `${name} layer ${index}`;
    await client.snapshotter.commit(background, committed, key, new Map(), '');
    chain.push(committed);
  }
  return { chain, refused: undefined };
}

/** @throws BadImage what manifest and config say cannot be */
async function layersOf(layout: string): Promise<readonly Layer[]> {
  const blob = async (digest: unknown): Promise<unknown> => {
    const path = digestOf(digest).replace(':', '/');
    return JSON.parse(await readFile(join(layout, 'blobs', path), 'utf8'));
  };
  const index: unknown = JSON.parse(await readFile(join(layout, 'index.json'), 'utf8'));
  const manifest = await blob(field(list(index, 'manifests')[0], 'digest'));
  const config = await blob(field(field(manifest, 'config'), 'digest'));
  const layers = list(manifest, 'layers');
  const diffIds = list(field(config, 'rootfs'), 'diff_ids');
  if (layers.length !== diffIds.length) {
    throw new BadImage(`${layers.length} layers, ${diffIds.length} diff IDs`);
  }
  return layers.map((layer, at) => ({
    mediaType: String(field(layer, 'mediaType')),
    digest: digestOf(field(layer, 'digest')),
    diffId: digestOf(diffIds[at]),
    size: Number(field(layer, 'size')),
  }));
}

function digestOf(value: unknown): Digest {
  try {
    return parseDigest(String(value));
  } catch (error) {
    throw new BadImage(String(error));
  }
}

const field = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;

function list(value: unknown, name: string): readonly unknown[] {
  const found = field(value, name);
  return Array.isArray(found) ? found : [];
}

async function upload(client: Client, layout: string, { digest }: Layer): Promise<void> {
  const known = await client.content.info(background, digest).catch(() => undefined);
  if (known !== undefined) return;
  let bytes: Buffer;
  try {
    bytes = await readFile(join(layout, 'blobs', digest.replace(':', '/')));
  } catch {
    // Apply says that it is missing.
    return;
  }
  await using writer = await client.content.writer(background, `upload ${digest}`, {
    expected: digest,
  });
  for (let at = 0; at < bytes.length; at += UPLOAD_BYTES) {
    await writer.write(at, Buffer.from(bytes.subarray(at, at + UPLOAD_BYTES)));
  }
  await writer.commit(new Map());
}
