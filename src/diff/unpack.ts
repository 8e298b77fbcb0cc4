import { randomUUID } from 'node:crypto';
import type { RequestContext } from '../base/context.ts';
import { chainIdOf, type Digest } from '../base/digest.ts';
import { isOpError, OpError } from '../base/errors.ts';
import type { Labels } from '../base/labels.ts';
import { PARENT_CHAIN_ID } from '../snapshotters/driver.ts';
import type { Mount, Snapshotter } from '../snapshotters/snapshotter.ts';
import type { Applier, Descriptor } from './diff.ts';

/** A layer of an image: its blob, and what the image's config says of it. */
export interface ImageLayer {
  readonly descriptor: Descriptor;
  readonly diffId: Digest;
  /** Of its snapshot, beside its name. */
  readonly labels?: Labels;
}

export interface Unpacking {
  readonly snapshotter: Snapshotter;
  readonly applier: Applier;
  /** The lowest first. */
  readonly layers: readonly ImageLayer[];
  /** The snapshotter claims `rebase`: layers are applied at the same time. Otherwise in order, read ahead. */
  readonly canRebase: boolean;
  /** The layer was applied, and has the diff ID that the config says. */
  readonly verified?: (layer: ImageLayer) => void;
}

const SNAPSHOT_REF = 'containerd.io/snapshot.ref';

/** How often a key or name is tried that is there and is not: somebody is just making it. As containerd. */
const ATTEMPTS = 3;

/** Names of the snapshots of an image's layers. */
export function chainIds(diffIds: readonly Digest[]): readonly Digest[] {
  const chain: Digest[] = [];
  for (const diffId of diffIds) chain.push(chainIdOf(chain.at(-1), diffId));
  return chain;
}

/**
 * Unpacks an image: makes a committed snapshot of each layer that has none, named by its chain ID, as containerd's
 * core/unpack does. What is committed stays when it fails, as it is right; no active snapshot does.
 * @returns the name of the topmost; empty without layers
 * @throws OpError as Applier.apply and Snapshotter.commit do; InvalidArgument: a layer has another diff ID
 */
export async function unpack(ctx: RequestContext, unpacking: Unpacking): Promise<string> {
  const { snapshotter, applier, layers, canRebase } = unpacking;
  const names = chainIds(layers.map(({ diffId }) => diffId));
  const first = await firstMissing(ctx, snapshotter, names);
  const failure = new AbortController();
  const signal = AbortSignal.any([ctx.signal, failure.signal]);
  // By name: a request's context has getters, which a spread would lose.
  const { namespace, leaseId } = ctx;
  const within = { signal, namespace, leaseId };
  await using inOrder = canRebase
    ? undefined
    : applier.inOrder?.(
        within,
        layers.slice(first).map(({ descriptor }) => descriptor),
      );
  const image: Image = { ...unpacking, applier: inOrder ?? applier, ctx: within, names };
  let below: Promise<void> = Promise.resolve();
  const unpacked: Promise<void>[] = [];
  for (let index = first; index < layers.length; index++) {
    // A layer whose parent is there goes on it right away.
    const isRebased = canRebase && index > first;
    const one = unpackLayer(image, index, isRebased, below);
    one.catch((error: unknown) => failure.abort(error));
    unpacked.push(one);
    below = one;
    if (!canRebase) await one;
  }
  const settled = await Promise.allSettled(unpacked);
  ctx.signal.throwIfAborted();
  // The first to fail; the others were given up for its sake.
  if (settled.some(({ status }) => status === 'rejected')) throw failure.signal.reason;
  return names.at(-1) ?? '';
}

interface Image extends Unpacking {
  readonly ctx: RequestContext;
  readonly names: readonly Digest[];
}

/** Whatever is committed has its parents. */
async function firstMissing(
  ctx: RequestContext,
  snapshotter: Snapshotter,
  names: readonly Digest[],
): Promise<number> {
  for (let index = names.length; index > 0; index--) {
    if (await exists(ctx, snapshotter, names[index - 1] ?? '')) return index;
  }
  return 0;
}

async function exists(ctx: RequestContext, snapshotter: Snapshotter, name: string) {
  try {
    await snapshotter.stat(ctx, name);
    return true;
  } catch (error) {
    if (isOpError(error, 'NotFound')) return false;
    throw error;
  }
}

/** @param below resolves when its parent is committed */
async function unpackLayer(
  image: Image,
  index: number,
  isRebased: boolean,
  below: Promise<void>,
): Promise<void> {
  const { ctx, snapshotter, layers, names } = image;
  const [parent = '', name = ''] = [names[index - 1], names[index]];
  const labels = new Map([...(layers[index]?.labels ?? []), [SNAPSHOT_REF, name]]);
  const active = isRebased
    ? await prepare(image, name, '', new Map([...labels, [PARENT_CHAIN_ID, parent]]))
    : await prepare(image, name, parent, labels);
  if (active === undefined) return below;
  try {
    await applyLayer(image, index, active.mounts);
    await below;
    await snapshotter.commit(ctx, name, active.key, labels, parent);
  } catch (error) {
    // Whoever gave up wants it gone all the same.
    const unstoppable = { ...ctx, signal: new AbortController().signal };
    await snapshotter.remove(unstoppable, active.key).catch(() => undefined);
    if (!isOpError(error, 'AlreadyExists')) throw error;
  }
}

/** @returns undefined where somebody else has committed it meanwhile */
async function prepare(
  { ctx, snapshotter }: Image,
  name: string,
  parent: string,
  labels: Labels,
): Promise<{ readonly key: string; readonly mounts: readonly Mount[] } | undefined> {
  for (let attempt = 1; ; attempt++) {
    const key = `extract-${randomUUID()} ${name}`;
    try {
      return { key, mounts: await snapshotter.prepare(ctx, key, parent, labels) };
    } catch (error) {
      if (!isOpError(error, 'AlreadyExists')) throw error;
      if (await exists(ctx, snapshotter, name)) return undefined;
      if (attempt === ATTEMPTS) throw error;
    }
  }
}

async function applyLayer(
  { ctx, applier, layers, verified }: Image,
  index: number,
  mounts: readonly Mount[],
): Promise<void> {
  const layer = layers[index];
  if (layer === undefined) throw new Error(`no layer ${index}`);
  const { descriptor, diffId } = layer;
  const { digest } = await applier.apply(ctx, descriptor, mounts);
  if (digest === diffId) return verified?.(layer);
  throw new OpError(
    'InvalidArgument',
    `layer ${descriptor.digest}: its diff ID is ${digest}, the image says ${diffId}`,
  );
}
