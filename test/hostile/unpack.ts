import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { background } from '../../src/base/context.ts';
import { parseDigest, type Digest } from '../../src/base/digest.ts';
import { isOpError, type OpError } from '../../src/base/errors.ts';
import type { Applier } from '../../src/diff/diff.ts';
import { unpack, type ImageLayer } from '../../src/diff/unpack.ts';
import { never } from '../../src/platform/jobs/cancellation.ts';
import { measureTree } from '../../src/platform/jobs/measure-tree.ts';
import type { Mount } from '../../src/snapshotters/snapshotter.ts';
import type { Client } from '../support/client.ts';
import { ownDirectory } from '../support/mounts.ts';

const UPLOAD_BYTES = 1 << 20;

/** A daemon, through its socket or without. */
export type Engine = Pick<Client, 'content' | 'applier' | 'snapshotter'>;

export interface Unpacked {
  /** The name of the topmost snapshot. */
  readonly top: string;
  readonly refused: OpError | undefined;
  /** What a layer that was refused left in a tree that was empty. */
  readonly leftovers: readonly string[];
}

/** An image that is refused before any layer is applied. */
export class BadImage extends Error {}

export interface UnpackOptions {
  /** All layers at once, with the calls of containerd 2.2. */
  readonly canRebase: boolean;
  /** Goes below those of the image. */
  readonly base?: ImageLayer;
}

/** Unpacks an image of an OCI layout: the blobs into the content store, then the layers. */
export async function unpackLayout(
  engine: Engine,
  layout: string,
  { canRebase, base }: UnpackOptions,
): Promise<Unpacked> {
  const layers = await layersOf(layout);
  const leftovers: string[] = [];
  const all = base === undefined ? layers : [base, ...layers];
  try {
    for (const { descriptor } of layers) await upload(engine, layout, descriptor.digest);
    const unpacking = { ...watched(engine, leftovers), layers: all, canRebase };
    return { top: await unpack(background, unpacking), refused: undefined, leftovers };
  } catch (error) {
    if (!isOpError(error)) throw error;
    return { top: '', refused: error, leftovers };
  }
}

/** The same engine; where it refuses a layer it is looked at what is left, before anybody removes that. */
function watched(engine: Engine, leftovers: string[]): Pick<Engine, 'applier' | 'snapshotter'> {
  /** By key. */
  const prepared = new Map<string, readonly Mount[]>();
  const wereEmpty = new Set<readonly Mount[]>();
  const look = async (error: unknown, mounts: readonly Mount[]): Promise<never> => {
    // One that was given up may still be at it.
    if (isOpError(error) && error.code !== 'Canceled' && wereEmpty.has(mounts)) {
      leftovers.push(...(await namesLeft(mounts)));
    }
    throw error;
  };
  const snapshotter = overridden(engine.snapshotter, {
    prepare: async (ctx, key, parent, labels) => {
      const mounts = await engine.snapshotter.prepare(ctx, key, parent, labels);
      prepared.set(key, mounts);
      if (parent === '' || mounts[0]?.type === 'overlay') wereEmpty.add(mounts);
      return mounts;
    },
    commit: async (ctx, name, key, labels, parent) => {
      const mounts = prepared.get(key) ?? [];
      await engine.snapshotter
        .commit(ctx, name, key, labels, parent)
        .catch((error: unknown) => look(error, mounts));
      await requireUsage(engine, name, mounts);
    },
  });
  const looked =
    (applier: Applier): Applier['apply'] =>
    (ctx, layer, mounts) =>
      applier.apply(ctx, layer, mounts).catch((error: unknown) => look(error, mounts));
  const { applier } = engine;
  const inOrder = applier.inOrder?.bind(applier);
  if (inOrder === undefined) return { snapshotter, applier: { apply: looked(applier) } };
  return {
    snapshotter,
    applier: {
      apply: looked(applier),
      inOrder: (ctx, layers) => {
        const ordered = inOrder(ctx, layers);
        return {
          apply: looked(ordered),
          [Symbol.asyncDispose]: () => ordered[Symbol.asyncDispose](),
        };
      },
    },
  };
}

/** @throws where Usage is not what a walk finds; on btrfs, whose Usage is a difference, nobody walks here */
async function requireUsage({ snapshotter }: Engine, name: string, mounts: readonly Mount[]) {
  if (mounts[0]?.type === 'btrfs') return;
  const { inodes, size } = await snapshotter.usage(background, name);
  const walked = measureTree(ownDirectory(mounts), never);
  if (walked?.inodes === inodes && walked.size === size) return;
  const found = `${walked?.inodes} inodes, ${walked?.size} bytes`;
  throw new Error(`Usage of ${name} is ${inodes} inodes, ${size} bytes; there are ${found}`);
}

async function namesLeft(mounts: readonly Mount[]): Promise<readonly string[]> {
  const directory = ownDirectory(mounts);
  const staged = await readdir(join(dirname(directory), 'staged')).catch(() => []);
  const isHalf = (name: string): boolean => name.startsWith('new-');
  return [...(await readdir(directory)), ...staged.filter(isHalf)];
}

function overridden<T extends object>(of: T, some: Partial<T>): T {
  return new Proxy(of, {
    get: (target, key) => {
      const own: unknown = Reflect.get(some, key);
      if (own !== undefined) return own;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** @throws BadImage what manifest and config say cannot be */
async function layersOf(layout: string): Promise<readonly ImageLayer[]> {
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
    descriptor: {
      mediaType: String(field(layer, 'mediaType')),
      digest: digestOf(field(layer, 'digest')),
      size: Number(field(layer, 'size')),
    },
    diffId: digestOf(diffIds[at]),
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

async function upload({ content }: Engine, layout: string, digest: Digest): Promise<void> {
  const known = await content.info(background, digest).catch(() => undefined);
  if (known !== undefined) return;
  let bytes: Buffer;
  try {
    bytes = await readFile(join(layout, 'blobs', digest.replace(':', '/')));
  } catch {
    // Apply says that it is missing.
    return;
  }
  await using writer = await content.writer(background, `upload ${digest}`, {
    expected: digest,
  });
  for (let at = 0; at < bytes.length; at += UPLOAD_BYTES) {
    await writer.write(at, Buffer.from(bytes.subarray(at, at + UPLOAD_BYTES)));
  }
  await writer.commit(new Map());
}
