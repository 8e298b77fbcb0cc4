import { createHash } from 'node:crypto';
import type { RequestContext } from '../src/base/context.ts';
import { background } from '../src/base/context.ts';
import { digestOf, type Digest } from '../src/base/digest.ts';
import type { Labels } from '../src/base/labels.ts';
import type { ContentStore } from '../src/content/content.ts';
import type { ImageDraft } from '../src/images/image.ts';
import type { Resource } from '../src/leases/lease.ts';
import type { Snapshotter } from '../src/snapshotters/snapshotter.ts';

/** What objects are made through: a socket, or the stores behind one. */
export interface Maker {
  readonly content: Pick<ContentStore, 'writer' | 'walk'>;
  readonly snapshotter: Pick<Snapshotter, 'prepare' | 'commit' | 'walk'>;
  createLease(ctx: RequestContext, id: string): Promise<unknown>;
  addResource(ctx: RequestContext, lease: string, resource: Resource): Promise<unknown>;
  createImage(ctx: RequestContext, image: ImageDraft): Promise<unknown>;
}

export const NAMESPACE = 'bench';
/** The lease that keeps the half that is to go. */
export const GARBAGE = 'garbage';
export const SNAPSHOTTER = 'overlayfs';

/** A manifest, its config, 4 layers and 3 snapshots; then the image, or in its place one more layer. */
export const OBJECTS_PER_GROUP = 10;
const LAYERS = 4;
const SNAPSHOTS = 3;
const BLOB_BYTES = 256;
const KEPT_BLOBS = LAYERS + 2;
const GARBAGE_BLOBS = LAYERS + 3;

const ctx: RequestContext = { signal: background.signal, namespace: NAMESPACE, leaseId: undefined };

/** What there is before the collection, and after it. */
export const blobsOf = (objects: number): { readonly all: number; readonly kept: number } => {
  const pairs = objects / OBJECTS_PER_GROUP / 2;
  return { all: pairs * (KEPT_BLOBS + GARBAGE_BLOBS), kept: pairs * KEPT_BLOBS };
};
export const snapshotsOf = (objects: number): { readonly all: number; readonly kept: number } => {
  const pairs = objects / OBJECTS_PER_GROUP / 2;
  return { all: pairs * 2 * SNAPSHOTS, kept: pairs * SNAPSHOTS };
};

/**
 * Makes the objects, of which every second group hangs from the lease `garbage` alone. The server must
 * not collect meanwhile.
 * @param objects a multiple of two groups
 */
export async function makeObjects(
  maker: Maker,
  objects: number,
  clients: number,
  signal: AbortSignal = background.signal,
): Promise<void> {
  await maker.createLease(ctx, GARBAGE);
  const groups = objects / OBJECTS_PER_GROUP;
  let next = 0;
  const client = async (): Promise<void> => {
    while (next < groups) {
      signal.throwIfAborted();
      await makeGroup(maker, next++);
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
}

async function makeGroup(maker: Maker, group: number): Promise<void> {
  const isKept = group % 2 === 0;
  let parent = '';
  for (let level = 0; level < SNAPSHOTS; level++) {
    const key = `extract-${group}-${level}`;
    const name = digest(`chain ${group} ${level}`);
    await maker.snapshotter.prepare(ctx, key, parent, new Map());
    await maker.snapshotter.commit(ctx, name, key, new Map(), parent);
    parent = name;
  }
  const labels = new Map<string, string>();
  for (let layer = 0; layer < LAYERS + (isKept ? 0 : 1); layer++) {
    labels.set(
      `containerd.io/gc.ref.content.l.${layer}`,
      await writeBlob(maker, `layer ${group} ${layer}`, new Map()),
    );
  }
  const refersToSnapshot = new Map([[`containerd.io/gc.ref.snapshot.${SNAPSHOTTER}`, parent]]);
  labels.set(
    'containerd.io/gc.ref.content.config',
    await writeBlob(maker, `config ${group}`, refersToSnapshot),
  );
  const manifest = await writeBlob(maker, `manifest ${group}`, labels);
  if (!isKept) {
    await maker.addResource(ctx, GARBAGE, { type: 'content', id: manifest });
    return;
  }
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  await maker.createImage(ctx, {
    name: `registry.invalid/bench/image-${group}:latest`,
    target: { mediaType, digest: manifest, size: BLOB_BYTES, annotations: new Map() },
    labels: new Map(),
  });
}

const digest = (text: string): Digest =>
  digestOf('sha256', createHash('sha256').update(text).digest('hex'));

async function writeBlob(maker: Maker, what: string, labels: Labels): Promise<Digest> {
  const bytes = Buffer.alloc(BLOB_BYTES, `${what}\n`);
  const expected = digestOf('sha256', createHash('sha256').update(bytes).digest('hex'));
  await using writer = await maker.content.writer(ctx, `ref ${what}`, {
    total: BLOB_BYTES,
    expected,
  });
  await writer.write(0, bytes);
  // Awaited: the writer must not be left before.
  return await writer.commit(labels);
}

/** @throws Error when there are more or fewer than these */
export async function expectObjects(
  maker: Maker,
  objects: number,
  which: 'all' | 'kept',
): Promise<void> {
  const count = async (things: AsyncIterable<unknown>): Promise<number> => {
    let found = 0;
    for await (const _thing of things) found++;
    return found;
  };
  const blobs = await count(maker.content.walk(ctx, []));
  const snapshots = await count(maker.snapshotter.walk(ctx, []));
  const [wantedBlobs, wantedSnapshots] = [blobsOf(objects)[which], snapshotsOf(objects)[which]];
  if (blobs !== wantedBlobs || snapshots !== wantedSnapshots) {
    throw new Error(
      `${blobs} blobs and ${snapshots} snapshots where ${wantedBlobs} and ${wantedSnapshots} should be`,
    );
  }
}
