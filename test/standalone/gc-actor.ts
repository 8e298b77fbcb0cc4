import { createHash } from 'node:crypto';
import type { RequestContext } from '../../src/base/context.ts';
import { parseDigest, type Digest } from '../../src/base/digest.ts';
import { isOpError } from '../../src/base/errors.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import type { Calls } from '../../src/grpc/proxy/calls.ts';
import type { Daemon } from '../support/daemon.ts';
import { Random } from '../support/random.ts';
import { inside, RPC } from './client.ts';

export const NAMESPACES = ['one', 'two'];
const ACTORS = 6;
const REF = 'containerd.io/gc.ref';

/** What was acknowledged and not taken away since, by namespace. */
export type Roots = ReadonlyMap<string, Set<string>>;
export const noRoots = (): Roots => new Map(NAMESPACES.map((name) => [name, new Set<string>()]));

interface Surroundings {
  readonly daemon: Daemon;
  readonly calls: Calls;
  readonly roots: Roots;
  /** How often a removal waits for a collection. */
  readonly sync?: number;
}

/** A client with names of its own. It refers only to what its lease keeps at that moment. */
class Actor {
  readonly #name: string;
  readonly #namespace: string;
  readonly #random: Random;
  readonly #daemon: Daemon;
  readonly #calls: Calls;
  readonly #roots: Set<string>;
  readonly #sync: number;
  readonly #images: string[] = [];
  #made = 0;

  constructor(name: string, random: Random, { daemon, calls, roots, sync = 0.4 }: Surroundings) {
    this.#name = name;
    this.#sync = sync;
    this.#namespace = random.pick(NAMESPACES) ?? 'one';
    this.#random = random;
    this.#daemon = daemon;
    this.#calls = calls;
    this.#roots = roots.get(this.#namespace) ?? new Set();
  }

  /** One image or so, from its lease to its end. */
  async work(): Promise<void> {
    const lease = this.#next('lease');
    const labels = this.#random.chance(0.3) ? { 'containerd.io/gc.flat': 'yes' } : {};
    const ctx = inside(this.#namespace, lease);
    const without = inside(this.#namespace);
    await this.#calls.unary(without, RPC.createLease, { id: lease, labels });
    this.#roots.add(`leases ${lease}`);
    const snapshots = await this.#snapshots(ctx);
    const blobs = await this.#blobs(ctx, snapshots);
    if (this.#random.chance(0.3)) await this.#leaveIngest(ctx);
    const top = blobs.at(-1);
    if (top !== undefined && this.#random.chance(0.7)) await this.#image(ctx, top);
    const snapshot = snapshots.at(-1);
    if (snapshot !== undefined && this.#random.chance(0.2)) await this.#container(snapshot);
    if (this.#random.chance(0.9)) {
      this.#roots.delete(`leases ${lease}`);
      const sync = this.#random.chance(this.#sync);
      await this.#calls.unary(without, RPC.deleteLease, { id: lease, sync });
    }
    if (this.#random.chance(0.5)) await this.#removeImage();
  }

  async #snapshots(ctx: RequestContext): Promise<readonly string[]> {
    const { snapshotter } = this.#daemon.client;
    const made: string[] = [];
    for (let left = this.#random.below(4); left > 0; left--) {
      const [key, name] = [this.#next('key'), this.#next('layer')];
      await snapshotter.prepare(ctx, key, made.at(-1) ?? '', NO_LABELS);
      if (this.#random.chance(0.2)) continue;
      await snapshotter.commit(ctx, name, key, NO_LABELS, '');
      made.push(name);
    }
    return made;
  }

  async #blobs(ctx: RequestContext, snapshots: readonly string[]): Promise<readonly Digest[]> {
    const { content } = this.#daemon.client;
    const made: Digest[] = [];
    for (let left = 1 + this.#random.below(4); left > 0; left--) {
      // Some that every client makes, in both namespaces: they refer to nothing.
      if (this.#random.chance(0.3)) {
        made.push(await this.#blob(ctx, `shared ${this.#random.below(4)}`, new Map()));
        continue;
      }
      const labels = new Map<string, string>();
      for (const [at, digest] of made.entries()) {
        if (this.#random.chance(0.7)) labels.set(`${REF}.content.l.${at}`, digest);
      }
      const snapshot = this.#random.pick(snapshots);
      if (snapshot !== undefined) labels.set(`${REF}.snapshot.native`, snapshot);
      const back = this.#random.pick(made);
      if (back !== undefined && this.#random.chance(0.3)) {
        labels.set('containerd.io/gc.bref.content', back);
      }
      const digest = await this.#blob(ctx, this.#next('blob'), labels);
      const last = made.at(-1);
      if (last !== undefined && this.#random.chance(0.3)) {
        const change = { digest, labels: new Map([[`${REF}.content.late`, last]]) };
        await content.update(ctx, change, [`labels.${REF}.content.late`]);
      }
      made.push(digest);
    }
    return made;
  }

  async #blob(ctx: RequestContext, text: string, labels: Map<string, string>): Promise<Digest> {
    const digest = parseDigest(`sha256:${createHash('sha256').update(text).digest('hex')}`);
    try {
      const expected = this.#random.chance(0.5) ? { expected: digest } : {};
      await using writer = await this.#daemon.client.content.writer(
        ctx,
        this.#next('ref'),
        expected,
      );
      if (writer.status().offset === 0) await writer.write(0, Buffer.from(text));
      await writer.commit(labels);
    } catch (error) {
      if (!isOpError(error, 'AlreadyExists')) throw error;
    }
    return digest;
  }

  async #leaveIngest(ctx: RequestContext): Promise<void> {
    await using writer = await this.#daemon.client.content.writer(ctx, this.#next('left'), {});
    await writer.write(0, Buffer.from('some'));
  }

  async #image(ctx: RequestContext, digest: Digest): Promise<void> {
    const name = this.#next('image');
    const target = { mediaType: 'application/x', digest, size: 1 };
    await this.#calls.unary(ctx, RPC.createImage, { image: { name, target } });
    this.#roots.add(`images ${name}`);
    this.#images.push(name);
  }

  async #container(snapshotKey: string): Promise<void> {
    const id = this.#next('container');
    await this.#calls.unary(inside(this.#namespace), RPC.createContainer, {
      container: {
        id,
        runtime: { name: 'runc' },
        spec: { type_url: 'spec', value: new Uint8Array(1) },
        snapshotter: 'native',
        snapshotKey,
      },
    });
    this.#roots.add(`containers ${id}`);
  }

  async #removeImage(): Promise<void> {
    const name = this.#images.shift();
    if (name === undefined) return;
    this.#roots.delete(`images ${name}`);
    const sync = this.#random.chance(this.#sync);
    await this.#calls.unary(inside(this.#namespace), RPC.deleteImage, { name, sync });
  }

  #next(what: string): string {
    return `${this.#name}-${what}-${this.#made++}`;
  }
}

export const actorsOf = (prefix: string, random: Random, surroundings: Surroundings) =>
  Array.from({ length: ACTORS }, (_, index) => {
    const own = new Random(random.below(2 ** 31));
    return new Actor(`${prefix}-a${index}`, own, surroundings);
  });
