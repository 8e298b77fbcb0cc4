import type { RequestContext } from '../base/context.ts';
import type { Clock } from '../base/clock.ts';
import { isOpError, OpError } from '../base/errors.ts';
import type { ContentStore } from '../content/content.ts';
import { EXPIRE_LABEL } from '../gc/collectible.ts';
import type { Image, ImageStore, Target } from '../images/image.ts';
import type { LeaseManager } from '../leases/lease.ts';
import { exportArchive } from './export.ts';
import { labelTree, storeArchive, unpackImage, type Unpacker } from './import.ts';
import { namesWithin, ownNames } from './names.ts';
import type { Child } from './oci.ts';
import type {
  ExportOptions,
  ImageDestination,
  ImportArchive,
  Report,
  Transfers,
} from './transfer.ts';

/** What a crash leaves of a transfer's lease ends then. */
const LEASE_NS = 24n * 60n * 60n * 1_000_000_000n;

interface Dependencies {
  readonly content: ContentStore;
  readonly images: ImageStore;
  readonly leases: LeaseManager;
  readonly clock: Clock;
  /**
   * Of a snapshotter's name, '' being the usual one's; undefined when there is none.
   * @throws OpError FailedPrecondition it is not available
   */
  readonly unpacker: (snapshotter: string) => Unpacker | undefined;
}

interface LeasedContext extends RequestContext {
  readonly leaseId: string;
}

export class LocalTransfers implements Transfers {
  readonly #dependencies: Dependencies;

  constructor(dependencies: Dependencies) {
    this.#dependencies = dependencies;
  }

  async import(
    caller: RequestContext,
    archive: ImportArchive,
    destination: ImageDestination,
    report: Report,
  ): Promise<void> {
    const { content } = this.#dependencies;
    const unpacker = this.#unpackerFor(destination);
    await this.#kept(caller, async (ctx) => {
      await report({ event: 'Importing', name: '', target: undefined });
      const index = await storeArchive(ctx, content, archive);
      const { named, unpackable } = await labelTree(ctx, content, index, destination);
      if (unpacker !== undefined) {
        for (const image of unpackable) await unpackImage(ctx, content, image, unpacker);
      }
      const images = [index, ...named].flatMap((child, at) => {
        const names = at === 0 ? ownNames(child, destination) : namesWithin(child, destination);
        return names.map((name) => ({ name, child }));
      });
      // In one turn, so that they share a batch.
      const stored = images.map(({ name, child }) => this.#store(ctx, name, child, destination));
      await Promise.all(stored);
      for (const { name, child } of images) {
        await report({ event: 'saved', name, target: targetOf(child) });
      }
      await report({ event: 'Completed import', name: '', target: undefined });
    });
  }

  async export(
    caller: RequestContext,
    source: Pick<ImageDestination, 'name' | 'references'>,
    options: ExportOptions,
    write: (bytes: Uint8Array) => Promise<void>,
    report: Report,
  ): Promise<void> {
    await this.#leased(caller, async (ctx) => {
      await report({ event: 'Exporting', name: '', target: undefined });
      const images = await this.#lookup(ctx, source);
      const { content, leases } = this.#dependencies;
      // Whoever removes an image meanwhile does not take it from the archive.
      const targets = images.map(({ target }) => ({ type: 'content', id: target.digest }));
      await Promise.all(targets.map((each) => leases.addResource(ctx, ctx.leaseId, each)));
      for await (const bytes of exportArchive(ctx, content, images, options)) await write(bytes);
      await report({ event: 'Completed export', name: '', target: undefined });
    });
  }

  async tag(ctx: RequestContext, name: string, destination: ImageDestination): Promise<void> {
    const { target } = await this.#dependencies.images.get(ctx, name);
    const names = ownNames(target, destination);
    if (names.length === 0) throw new OpError('NotFound', 'no image name found: none is given');
    await Promise.all(names.map((each) => this.#store(ctx, each, target, destination)));
  }

  /** What is made is kept by the caller's lease, or by one that ends with the work. */
  async #kept(caller: RequestContext, work: (ctx: RequestContext) => Promise<void>): Promise<void> {
    await (caller.leaseId === undefined ? this.#leased(caller, work) : work(caller));
  }

  /** Under a lease of its own, that goes whatever comes. */
  async #leased(
    caller: RequestContext,
    work: (ctx: LeasedContext) => Promise<void>,
  ): Promise<void> {
    const { leases, clock } = this.#dependencies;
    const { signal, namespace } = caller;
    const expire = new Date(Number((clock.now() + LEASE_NS) / 1_000_000n)).toISOString();
    const { id } = await leases.create(caller, '', new Map([[EXPIRE_LABEL, expire]]));
    try {
      await work({ signal, namespace, leaseId: id });
    } finally {
      await leases.delete(caller, id).catch((error: unknown) => {
        // Somebody else has ended it.
        if (!isOpError(error, 'NotFound')) throw error;
      });
    }
  }

  /** @throws OpError InvalidArgument none that is wanted is known; FailedPrecondition */
  #unpackerFor({ unpacks }: ImageDestination): Unpacker | undefined {
    if (unpacks.length === 0) return undefined;
    for (const name of unpacks) {
      const unpacker = this.#dependencies.unpacker(name);
      if (unpacker !== undefined) return unpacker;
    }
    throw new OpError(
      'InvalidArgument',
      `no snapshotter to unpack into: ${unpacks.join(', ')} is not in the config`,
    );
  }

  /** @throws OpError NotFound; Unimplemented */
  async #lookup(
    ctx: RequestContext,
    { name, references }: Pick<ImageDestination, 'name' | 'references'>,
  ): Promise<readonly Image[]> {
    const { images } = this.#dependencies;
    if (references.some(({ isPrefix }) => isPrefix)) {
      throw new OpError('Unimplemented', 'images cannot be exported by a prefix of their names');
    }
    const names = [...(name === '' ? [] : [name]), ...references.map((each) => each.name)];
    return Promise.all(names.map((each) => images.get(ctx, each)));
  }

  /** One that is there is replaced. */
  async #store(
    ctx: RequestContext,
    name: string,
    target: Target,
    { labels }: ImageDestination,
  ): Promise<void> {
    const { images } = this.#dependencies;
    const image = { name, labels, target: targetOf(target) };
    for (;;) {
      try {
        await images.create(ctx, image);
        return;
      } catch (error) {
        if (!isOpError(error, 'AlreadyExists')) throw error;
      }
      try {
        await images.update(ctx, image, []);
        return;
      } catch (error) {
        // Deleted since: once more from the start.
        if (!isOpError(error, 'NotFound')) throw error;
      }
    }
  }
}

const targetOf = ({ mediaType, digest, size, annotations }: Target | Child): Target => ({
  mediaType,
  digest,
  size,
  annotations,
});
