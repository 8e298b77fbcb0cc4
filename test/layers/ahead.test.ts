// Where no snapshot can be rebased, layers are written in order, and the next one is read meanwhile. The blobs come
// from the test, which sees what is taken of them when, and waits at a layer's Commit for what is to happen before.
import { createHash } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { RequestContext } from '../../src/base/context.ts';
import { digestOf, type Digest } from '../../src/base/digest.ts';
import { isOpError, OpError } from '../../src/base/errors.ts';
import type { BlobSource, BlobSources } from '../../src/diff/apply/layer-reading.ts';
import { TAR_LIMITS } from '../../src/diff/apply/limits.ts';
import { ThreadedApplier } from '../../src/diff/apply/threaded-applier.ts';
import { PLAIN_LAYER, type Applier, type Descriptor } from '../../src/diff/diff.ts';
import { chainIds, unpack, type ImageLayer } from '../../src/diff/unpack.ts';
import type { Snapshotter } from '../../src/snapshotters/snapshotter.ts';
import { inside, startAlone } from '../standalone/client.ts';
import { collect } from '../support/collect.ts';
import { rootFor } from '../support/loop-fs.ts';
import { PATIENCE_MS, within } from '../support/patience.ts';
import { END, rawEntry } from '../support/tar.ts';
import { repository } from '../support/temporary.ts';

const PIECE_BYTES = 256 * 1024;
/** More than all rings of a layer that is read ahead hold. */
const LARGE_BYTES = 48 << 20;

const here = inside('test');

interface Layer extends ImageLayer {
  readonly name: string;
}

const sha256 = (bytes: Uint8Array): Digest =>
  digestOf('sha256', createHash('sha256').update(bytes).digest('hex'));

const archive = (name: string, bytes = 10): Buffer =>
  Buffer.concat([rawEntry({ name }, Buffer.alloc(bytes, name)), END]);

/** Blobs that come in pieces, and what is asked for of which, in order. */
class Blobs implements BlobSources {
  /** `a: asked for`, `a: all taken`, `a: closed`; and what tests add. */
  readonly events: string[] = [];
  readonly #blobs = new Map<Digest, { readonly name: string; readonly bytes: Buffer }>();
  readonly #waiting = new Map<string, PromiseWithResolvers<void>>();

  /** @param changed the bytes that come for it, in the place of the archive's own */
  add(name: string, plain: Buffer = archive(name), changed: Buffer = plain): Layer {
    const digest = sha256(plain);
    this.#blobs.set(digest, { name, bytes: changed });
    return {
      name,
      diffId: digest,
      descriptor: { mediaType: PLAIN_LAYER, digest, size: plain.length },
    };
  }

  drop({ descriptor }: Layer): void {
    this.#blobs.delete(descriptor.digest);
  }

  async sourceOf(_ctx: RequestContext, { digest }: Descriptor): Promise<BlobSource> {
    const blob = this.#blobs.get(digest);
    if (blob === undefined) throw new OpError('NotFound', `blob ${digest}: not found`);
    this.tell(`${blob.name}: asked for`);
    return { chunks: this.#piecesOf(blob.name, blob.bytes), toVerify: true };
  }

  async *#piecesOf(name: string, bytes: Buffer): AsyncIterable<Uint8Array> {
    try {
      for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
        yield bytes.subarray(at, at + PIECE_BYTES);
      }
      this.tell(`${name}: all taken`);
    } finally {
      this.tell(`${name}: closed`);
    }
  }

  tell(event: string): void {
    this.events.push(event);
    this.#until(event).resolve();
  }

  /** Resolves when it has happened. */
  async until(event: string): Promise<void> {
    await within(PATIENCE_MS, event, this.#until(event).promise);
  }

  #until(event: string): PromiseWithResolvers<void> {
    const waiting = this.#waiting.get(event) ?? Promise.withResolvers<void>();
    this.#waiting.set(event, waiting);
    return waiting;
  }

  count(event: RegExp): number {
    return this.events.filter((each) => event.test(each)).length;
  }
}

/** A snapshotter whose Commit of a layer waits for what the test wants first. */
function watched(
  snapshotter: Snapshotter,
  blobs: Blobs,
  layers: readonly Layer[],
  before: (name: string) => Promise<void> = async () => undefined,
): Snapshotter {
  const chain = chainIds(layers.map(({ diffId }) => diffId));
  const nameOf = (key: string): string =>
    layers[chain.findIndex((id) => key.endsWith(id))]?.name ?? key;
  const own: Partial<Snapshotter> = {
    prepare: async (ctx, key, parent, labels) => {
      const mounts = await snapshotter.prepare(ctx, key, parent, labels);
      blobs.tell(`${nameOf(key)}: prepared`);
      return mounts;
    },
    commit: async (ctx, name, key, labels, parent) => {
      blobs.tell(`${nameOf(key)}: written`);
      await before(nameOf(key));
      await snapshotter.commit(ctx, name, key, labels, parent);
      blobs.tell(`${nameOf(key)}: committed`);
    },
  };
  return new Proxy(snapshotter, {
    get: (target, key) => {
      const value: unknown = Reflect.get(own, key) ?? Reflect.get(target, key);
      return typeof value === 'function' && !(key in own) ? value.bind(target) : value;
    },
  });
}

interface Engine extends AsyncDisposable {
  /** Of a daemon. */
  readonly snapshotter: Snapshotter;
  readonly blobs: Blobs;
  readonly applier: ThreadedApplier;
}

async function engineOn(driver: 'native' | 'btrfs'): Promise<Engine> {
  await using parts = new AsyncDisposableStack();
  const blobs = new Blobs();
  const root = parts.use(await rootFor(driver, 'ahead'));
  const daemon = parts.use(await startAlone(root.path, undefined, driver));
  const workerEntry = join(repository, 'src/daemon/layer-worker.ts');
  const applier = parts.use(new ThreadedApplier({ workerEntry, limits: TAR_LIMITS, blobs }));
  const all = parts.move();
  const { snapshotter } = daemon.client;
  return { snapshotter, blobs, applier, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** Names of the committed snapshots; nothing else may be there, and no blob may be open. */
async function committedIn({ snapshotter, blobs }: Engine): Promise<ReadonlySet<string>> {
  const infos = await collect(snapshotter.walk(here, []));
  expect(infos.filter(({ kind }) => kind !== 'committed')).toEqual([]);
  expect(blobs.count(/: closed$/), blobs.events.join('\n')).toBe(blobs.count(/: asked for$/));
  return new Set(infos.map(({ name }) => name));
}

const chainOf = (layers: readonly ImageLayer[]): readonly string[] =>
  chainIds(layers.map(({ diffId }) => diffId));

for (const driver of ['native', 'btrfs'] as const) {
  test(`${driver}: the next layer is taken to its end before the one below is committed; trees are made in order`, async () => {
    await using engine = await engineOn(driver);
    const { blobs, applier } = engine;
    const layers = ['a', 'b', 'c', 'd'].map((name) => blobs.add(name));
    const next = new Map(layers.map(({ name }, at) => [name, layers[at + 1]?.name]));
    const snapshotter = watched(engine.snapshotter, blobs, layers, async (name) => {
      const above = next.get(name);
      if (above !== undefined) await blobs.until(`${above}: all taken`);
    });
    const top = await unpack(here, { snapshotter, applier, layers, canRebase: false });
    expect(top).toBe(chainOf(layers).at(-1));
    expect(await committedIn(engine)).toEqual(new Set(chainOf(layers)));
    const trees = blobs.events.filter((event) => /prepared|written|committed/.test(event));
    expect(trees).toEqual(
      layers.flatMap(({ name }) => [`${name}: prepared`, `${name}: written`, `${name}: committed`]),
    );
    // One at a time, and each once.
    const readings = blobs.events.filter((event) => /asked for|closed/.test(event));
    expect(readings).toEqual(
      layers.flatMap(({ name }) => [`${name}: asked for`, `${name}: closed`]),
    );
  });
}

test('a layer that is read ahead as far as memory goes keeps no other image from being unpacked', async () => {
  await using engine = await engineOn('native');
  const { blobs, applier } = engine;
  const waiting = ['a', 'b'].map((name) => blobs.add(name, archive(name, LARGE_BYTES)));
  const other = ['x', 'y', 'z'].map((name) => blobs.add(name, archive(name, LARGE_BYTES)));
  const snapshotter = watched(engine.snapshotter, blobs, waiting, async (name) => {
    if (name === 'a') await blobs.until('the other image is there');
  });
  const one = unpack(here, { snapshotter, applier, layers: waiting, canRebase: false });
  await blobs.until('b: asked for');
  const { snapshotter: plain } = engine;
  await unpack(here, { snapshotter: plain, applier, layers: other, canRebase: false });
  // Its rings were full.
  expect(blobs.events).not.toContain('b: all taken');
  blobs.tell('the other image is there');
  await one;
  expect(await committedIn(engine)).toEqual(new Set([...chainOf(waiting), ...chainOf(other)]));
});

test('of many images at once only some read ahead, and all of them are unpacked', async () => {
  await using engine = await engineOn('native');
  const { blobs, applier } = engine;
  const aheadMax = Math.max(4, availableParallelism());
  const images = Array.from({ length: aheadMax + 2 }, (_, n) =>
    ['low', 'high'].map((name) => blobs.add(`${name} ${n}`)),
  );
  let written = 0;
  const unpacked = images.map((layers) => {
    const snapshotter = watched(engine.snapshotter, blobs, layers, async (name) => {
      if (!name.startsWith('low')) return;
      if (++written === images.length) blobs.tell('all are written');
      await blobs.until('all are written');
    });
    return unpack(here, { snapshotter, applier, layers, canRebase: false });
  });
  await blobs.until('all are written');
  expect(blobs.count(/^high .*: asked for$/)).toBe(aheadMax);
  await Promise.all(unpacked);
  expect(await committedIn(engine)).toEqual(new Set(images.flatMap(chainOf)));
});

const CHANGED = Buffer.from(archive('c'));
CHANGED.write('C', 512);

/** Each makes the layers a to d of an image that does not come out whole. */
const FAILING: Readonly<Record<string, (blobs: Blobs) => readonly Layer[]>> = {
  'a blob is not what its digest says': (blobs) => [
    ...['a', 'b'].map((name) => blobs.add(name)),
    blobs.add('c', archive('c'), CHANGED),
    blobs.add('d'),
  ],
  'a large blob is cut off': (blobs) => {
    const large = archive('c', LARGE_BYTES);
    return [
      ...['a', 'b'].map((name) => blobs.add(name)),
      blobs.add('c', large, large.subarray(0, 30 << 20)),
      blobs.add('d'),
    ];
  },
  'a blob is not there': (blobs) => {
    const layers = ['a', 'b', 'c', 'd'].map((name) => blobs.add(name));
    for (const layer of layers.slice(2, 3)) blobs.drop(layer);
    return layers;
  },
  'the lower of two that are wrong counts': (blobs) => [
    blobs.add('a'),
    blobs.add('b', Buffer.concat([rawEntry({ name: 'b' }), Buffer.alloc(512, 7), END])),
    blobs.add('c', archive('c'), CHANGED),
    blobs.add('d'),
  ],
  'a diff ID is another one': (blobs) => {
    const wrong = sha256(Buffer.from('another'));
    return ['a', 'b', 'c', 'd'].map((name) => ({
      ...blobs.add(name),
      ...(name === 'b' ? { diffId: wrong } : {}),
    }));
  },
};

for (const [what, make] of Object.entries(FAILING)) {
  test(`${what}: the same error as without reading ahead, the same layers, and nothing else`, async () => {
    await using engine = await engineOn('native');
    await using plain = await engineOn('native');
    const outcomeOf = async (of: Engine, applier: Applier) => {
      const layers = make(of.blobs);
      const snapshotter = watched(of.snapshotter, of.blobs, layers);
      const error: unknown = await unpack(here, {
        snapshotter,
        applier,
        layers,
        canRebase: false,
      }).catch((thrown: unknown) => thrown);
      if (!isOpError(error)) throw error;
      return { code: error.code, message: error.message, committed: await committedIn(of) };
    };
    const outcome = await outcomeOf(engine, engine.applier);
    expect(outcome).toEqual(
      await outcomeOf(plain, { apply: (...args) => plain.applier.apply(...args) }),
    );
    expect(outcome.committed.size).toBeGreaterThan(0);
    // Whoever tries again gets as far.
    expect(await outcomeOf(engine, engine.applier)).toEqual(outcome);
  });
}

test('a layer ahead that somebody else commits is left out, and the next one is read', async () => {
  await using engine = await engineOn('native');
  const { blobs, applier } = engine;
  const layers = ['a', 'b', 'c', 'd'].map((name) =>
    blobs.add(name, archive(name, name === 'b' ? LARGE_BYTES : 10)),
  );
  const snapshotter = watched(engine.snapshotter, blobs, layers, async (name) => {
    if (name !== 'a') return;
    await blobs.until('b: asked for');
    // The first three, in the meantime.
    const { snapshotter: plain } = engine;
    const some = { snapshotter: plain, layers: layers.slice(0, 3), canRebase: false };
    await unpack(here, { ...some, applier: { apply: (...args) => applier.apply(...args) } });
    blobs.tell('three are there');
  });
  await unpack(here, { snapshotter, applier, layers, canRebase: false });
  const after = blobs.events.slice(blobs.events.indexOf('three are there') + 1);
  expect(after).toEqual([
    'd: prepared',
    'b: closed',
    'd: asked for',
    'd: all taken',
    'd: closed',
    'd: written',
    'd: committed',
  ]);
  expect(await committedIn(engine)).toEqual(new Set(chainOf(layers)));
});

test('an image that is given up lets go of what it read ahead', async () => {
  await using engine = await engineOn('native');
  const { blobs, applier } = engine;
  const layers = ['a', 'b'].map((name) => blobs.add(name, archive(name, LARGE_BYTES)));
  const controller = new AbortController();
  const ctx = { ...here, signal: controller.signal };
  const snapshotter = watched(engine.snapshotter, blobs, layers, async () => {
    await blobs.until('b: asked for');
    controller.abort(new OpError('Canceled', 'the client has gone'));
    ctx.signal.throwIfAborted();
  });
  const given = unpack(ctx, { snapshotter, applier, layers, canRebase: false });
  await expect(given).rejects.toMatchObject({ code: 'Canceled', message: 'the client has gone' });
  expect(await committedIn(engine)).toEqual(new Set());
  // All of it can be used again.
  const again = { snapshotter: engine.snapshotter, applier, layers, canRebase: false };
  await unpack(here, again);
  expect(await committedIn(engine)).toEqual(new Set(chainOf(layers)));
});
