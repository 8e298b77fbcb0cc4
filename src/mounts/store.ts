import { mkdir as makeFolder, readdir, realpath } from 'node:fs/promises';
import { join, relative, resolve } from 'node:path';
import type { RequestContext } from '../base/context.ts';
import { alreadyExists, messageOf, notFound, OpError, quote } from '../base/errors.ts';
import { adaptActivation, compileFilters } from '../base/filters.ts';
import { requireNamespace } from '../base/identifiers.ts';
import { checkLabels, withoutEmptyLabels } from '../base/labels.ts';
import { KeyedLocks } from '../base/locks.ts';
import type { Collectible, Discarded, Node, Vertex } from '../gc/collectible.ts';
import type { WriteTx } from '../metadata/metadata.ts';
import { create, labelsToRecord, NamespacedRecords } from '../metadata/namespaced-records.ts';
import type { MountJobs } from '../platform/platform.ts';
import { format } from './format.ts';
import { mkdir } from './mkdir.ts';
import type {
  ActivateRequest,
  Activation,
  ActiveMount,
  ListedMount,
  MountManager,
} from './mount.ts';
import { planOf, type Plan, type PlannedMount } from './plan.ts';
import type { Books } from '../namespaces/books.ts';

/** As many as containerd takes. */
const MOUNTS_MAX = 255;

/** An activation, the number of its folder, and the lease of who made it. */
interface Kept {
  readonly activation: Activation;
  readonly folder: number;
  readonly lease: string | undefined;
  /** Nanoseconds since the epoch. */
  readonly createdAt: bigint;
}

interface ActivationRecord {
  readonly folder: number;
  readonly created: string;
  readonly lease?: string;
  readonly labels?: readonly (readonly [string, string])[];
  readonly active: readonly (Omit<ActiveMount, 'mountedAt'> & { readonly mountedAt: string })[];
  readonly system: readonly ListedMount[];
}

interface Dependencies extends Omit<Books, 'events'> {
  readonly jobs: MountJobs;
  readonly warn: (fields: Record<string, unknown>, message: string) => void;
}

/**
 * What is mounted for clients lies in a folder each, below `mounts` in the root, and stays while the daemon
 * is away. First the mounts are made, then the record; first the record goes, then the mounts: a crash, or
 * the machine's end, leaves folders without a record, which start-up takes down, or records without their
 * mounts, which it drops.
 */
export class LocalMountManager implements MountManager, Collectible {
  readonly type = 'mounts';
  /** What was left by a crash is gone, or will be tried again with the next collection. */
  readonly recovered: Promise<void>;
  /** Absolute, without links: as the kernel lists what is mounted in it. */
  readonly #folder: string;
  /** Where directories may be made for mounts: as the config has it, and without links. */
  readonly #roots: { readonly given: string; readonly real: string };
  readonly #activations: NamespacedRecords<Kept>;
  readonly #dependencies: Dependencies;
  readonly #locks = new KeyedLocks();
  #nextFolder: number;
  /** Folders without a record, which could not be taken down. */
  readonly #left = new Set<number>();

  /** @param root of the daemon */
  static async open(root: string, dependencies: Dependencies): Promise<LocalMountManager> {
    const { metadata, jobs } = dependencies;
    const activations = await NamespacedRecords.load<Kept>(metadata, 'mount', {
      encode: toRecord,
      decode: (value, name) => fromRecord(value as ActivationRecord, name),
    });
    await makeFolder(join(root, 'mounts'), { recursive: true, mode: 0o700 });
    const real = await realpath(root);
    const folder = join(real, 'mounts');
    const folders = (await readdir(folder)).filter((name) => /^\d+$/.test(name));
    // Mostly there are none, and then no thread need be started for it.
    const points = folders.length === 0 ? new Set<string>() : await jobs.list(folder);
    await dropUnmounted(activations, points, dependencies);
    return new LocalMountManager({ given: resolve(root), real }, activations, {
      folders: folders.map(Number),
      dependencies,
    });
  }

  private constructor(
    roots: { readonly given: string; readonly real: string },
    activations: NamespacedRecords<Kept>,
    { folders, dependencies }: { folders: readonly number[]; dependencies: Dependencies },
  ) {
    this.#roots = roots;
    this.#folder = join(roots.real, 'mounts');
    this.#activations = activations;
    this.#dependencies = dependencies;
    const kept = new Set([...all(activations)].map(({ folder }) => folder));
    this.#nextFolder = Math.max(0, ...folders, ...kept) + 1;
    for (const folder of folders) if (!kept.has(folder)) this.#left.add(folder);
    this.recovered = this.swept().then(() => undefined);
    dependencies.namespaces.addOccupant((name) => (activations.any(name) ? 'mounts' : undefined));
  }

  async activate(ctx: RequestContext, request: ActivateRequest): Promise<Activation> {
    const namespace = requireNamespace(ctx);
    const { name } = request;
    check(request);
    const plan = planOf(request.mounts, request.temporary);
    if (plan === undefined) {
      throw new OpError(
        'Unimplemented',
        `activation ${quote(name)}: the client can make all its mounts itself`,
      );
    }
    refuseUnknown(plan);
    return this.#locks.with([`${namespace}/${name}`], async () => {
      if (this.#activations.get(namespace, name) !== undefined) {
        await this.#dependencies.metadata.settled();
        throw alreadyExists(`activation ${quote(name)}`);
      }
      this.#dependencies.leases.require(ctx);
      const folder = this.#nextFolder++;
      try {
        const activation = await this.#make(request, plan, join(this.#folder, String(folder)));
        const createdAt = this.#dependencies.clock.now();
        await this.#record(ctx, namespace, { activation, folder, lease: ctx.leaseId, createdAt });
        return activation;
      } catch (error) {
        await this.#tryTakeDown(folder);
        throw error;
      }
    });
  }

  async deactivate(ctx: RequestContext, name: string): Promise<void> {
    const namespace = requireNamespace(ctx);
    const { metadata, gc } = this.#dependencies;
    await this.#locks.with([`${namespace}/${name}`], async () => {
      const { folder } = await metadata.update(
        (tx) => {
          const kept = this.#get(namespace, name);
          this.#delete(tx, namespace, kept);
          gc.freed(tx);
          return kept;
        },
        { frees: true },
      );
      await this.#takeDown(folder);
    });
  }

  async info(ctx: RequestContext, name: string): Promise<Activation> {
    return this.#get(requireNamespace(ctx), name).activation;
  }

  async list(ctx: RequestContext, filters: readonly string[]): Promise<readonly Activation[]> {
    const namespace = requireNamespace(ctx);
    const matches = await compileFilters(filters);
    return this.#activations
      .sorted(namespace)
      .map(({ activation }) => activation)
      .filter((activation) => matches(adaptActivation(activation)));
  }

  *nodes(): Iterable<Node> {
    for (const [namespace, key] of this.#activations.names()) {
      yield { type: this.type, namespace, key };
    }
  }

  find(namespace: string, key: string): Vertex | undefined {
    const kept = this.#activations.get(namespace, key);
    if (kept === undefined) return undefined;
    const { createdAt, activation } = kept;
    return { root: 'never', createdAt, labels: activation.labels, refersTo: [] };
  }

  discard(tx: WriteTx, namespace: string, key: string): Discarded | undefined {
    const kept = this.#activations.get(namespace, key);
    if (kept === undefined) return undefined;
    this.#delete(tx, namespace, kept);
    return () => this.#tryTakeDown(kept.folder);
  }

  /** Once more what was in use; it takes no room. */
  async swept(): Promise<ReadonlyMap<string, number>> {
    await Promise.all([...this.#left].map((folder) => this.#tryTakeDown(folder)));
    return new Map();
  }

  async #make(request: ActivateRequest, plan: Plan, folder: string): Promise<Activation> {
    const active: ActiveMount[] = [];
    for (const [index, planned] of plan.here.entries()) {
      const mount = await this.#transformed(planned, active);
      if (mount.target !== '') {
        throw new OpError(
          'InvalidArgument',
          `mount ${index} has target ${quote(mount.target)}, which only one that the client makes may have`,
        );
      }
      const mountPoint = join(folder, String(index));
      await this.#dependencies.jobs.make(folder, mount, mountPoint);
      active.push({ ...mount, mountPoint, mountedAt: this.#dependencies.clock.now() });
    }
    const [next, ...rest] = plan.byClient;
    const system = next === undefined ? [] : [await this.#transformed(next, active)];
    const last = active.at(-1);
    if (request.temporary && last !== undefined) {
      system.push({ type: 'bind', source: last.mountPoint, target: '', options: ['rbind'] });
    }
    return {
      name: request.name,
      active,
      system: [...system, ...rest.map(({ mount }) => mount)],
      labels: withoutEmptyLabels(request.labels),
    };
  }

  /** @throws OpError as the transformers do */
  async #transformed(
    { transformers, mount }: PlannedMount,
    active: readonly ActiveMount[],
  ): Promise<ListedMount> {
    let transformed = mount;
    for (const transformer of transformers) {
      if (transformer === 'format') {
        transformed = format(transformed, active);
        continue;
      }
      const made = mkdir(transformed);
      transformed = made.mount;
      for (const directory of made.directories) {
        const path = this.#inRoot(directory.path);
        const root = this.#roots.real;
        await this.#dependencies.jobs.makeDirectory({ ...directory, root, path });
      }
    }
    return transformed;
  }

  /** @throws OpError Unimplemented outside of the root, as containerd has it */
  #inRoot(path: string): string {
    const { given, real } = this.#roots;
    for (const root of [given, real]) {
      const below = relative(root, path);
      if (below !== '' && below !== '..' && !below.startsWith('../')) return join(real, below);
    }
    throw new OpError('Unimplemented', `directory ${quote(path)}: is not below ${given}`);
  }

  async #record(ctx: RequestContext, namespace: string, kept: Kept): Promise<void> {
    const { metadata, namespaces, leases, gc } = this.#dependencies;
    const { name } = kept.activation;
    await create(metadata, (tx) => {
      namespaces.ensure(tx, namespace);
      this.#activations.add(tx, namespace, name, kept);
      leases.keep(tx, ctx, { type: this.type, id: name });
      gc.touch({ type: this.type, namespace, key: name }, tx);
    });
  }

  #delete(tx: WriteTx, namespace: string, { activation, lease }: Kept): void {
    const { name } = activation;
    this.#activations.delete(tx, namespace, name);
    this.#dependencies.leases.forget(
      tx,
      { signal: NEVER, namespace, leaseId: lease },
      { type: this.type, id: name },
    );
  }

  async #takeDown(folder: number): Promise<void> {
    this.#left.add(folder);
    await this.#dependencies.jobs.takeDown(join(this.#folder, String(folder)));
    this.#left.delete(folder);
  }

  async #tryTakeDown(folder: number): Promise<void> {
    try {
      await this.#takeDown(folder);
    } catch (error) {
      const fields = { folder, error: messageOf(error) };
      this.#dependencies.warn(fields, 'mounts stay until a later collection');
    }
  }

  /** @throws OpError NotFound */
  #get(namespace: string, name: string): Kept {
    const kept = this.#activations.get(namespace, name);
    if (kept === undefined) throw notFound(`activation ${quote(name)}`);
    return kept;
  }
}

const NEVER = new AbortController().signal;

/** @throws OpError InvalidArgument */
function check({ name, mounts, labels }: ActivateRequest): void {
  if (name === '') throw new OpError('InvalidArgument', 'activation: its name must not be empty');
  checkLabels(labels);
  if (mounts.length > MOUNTS_MAX) {
    throw new OpError(
      'InvalidArgument',
      `activation ${quote(name)}: ${mounts.length} mounts, at most ${MOUNTS_MAX}`,
    );
  }
}

/** @throws OpError Unimplemented */
function refuseUnknown({ here }: Plan): void {
  for (const { mount } of here) {
    if (!mount.type.includes('/')) continue;
    throw new OpError(
      'Unimplemented',
      `mount type ${quote(mount.type)}: only format/ and mkdir/ may stand before a type`,
    );
  }
}

function* all(activations: NamespacedRecords<Kept>): Iterable<Kept> {
  for (const [namespace, name] of activations.names()) {
    const kept = activations.get(namespace, name);
    if (kept !== undefined) yield kept;
  }
}

/** The machine was started anew, or others unmounted them: an activation is whole or is not there. */
async function dropUnmounted(
  activations: NamespacedRecords<Kept>,
  points: ReadonlySet<string>,
  { metadata, warn }: Dependencies,
): Promise<void> {
  const gone = [...activations.names()].filter(([namespace, name]) =>
    activations
      .get(namespace, name)
      ?.activation.active.some(({ mountPoint }) => !points.has(mountPoint)),
  );
  if (gone.length === 0) return;
  warn({ activations: gone.map(([, name]) => name) }, 'are not mounted any more: dropped');
  await metadata.update((tx) => {
    for (const [namespace, name] of gone) activations.delete(tx, namespace, name);
  });
}

const toRecord = ({ activation, folder, lease, createdAt }: Kept): ActivationRecord => ({
  folder,
  created: String(createdAt),
  ...(lease === undefined ? {} : { lease }),
  ...labelsToRecord(activation.labels),
  active: activation.active.map((mount) => ({ ...mount, mountedAt: String(mount.mountedAt) })),
  system: activation.system,
});

const fromRecord = (record: ActivationRecord, name: string): Kept => ({
  folder: record.folder,
  lease: record.lease,
  createdAt: BigInt(record.created),
  activation: {
    name,
    active: record.active.map((mount) => ({ ...mount, mountedAt: BigInt(mount.mountedAt) })),
    system: record.system,
    labels: new Map(record.labels),
  },
});
