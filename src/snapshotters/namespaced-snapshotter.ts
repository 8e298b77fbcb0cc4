import { background, type RequestContext } from '../base/context.ts';
import { alreadyExists, isOpError, OpError, quote } from '../base/errors.ts';
import { adaptSnapshot, compileFilters } from '../base/filters.ts';
import { requireNamespace } from '../base/identifiers.ts';
import { checkLabels, type Labels } from '../base/labels.ts';
import type { Collectible, Discarded, Node, Vertex, Weight } from '../gc/collectible.ts';
import type { Resource } from '../leases/lease.ts';
import type { Along, WriteTx } from '../metadata/metadata.ts';
import type { Info, Mount, Snapshotter, Usage } from './snapshotter.ts';
import type { Books } from '../namespaces/books.ts';

/** What it stands on: a snapshotter that says at once what it has, and lets go of it in another's batch. */
interface Backend extends Snapshotter {
  anyBelow(prefix: string): boolean;
  names(): Iterable<string>;
  find(name: string): Info | undefined;
  discard(tx: WriteTx, name: string): (() => void) | undefined;
}

type Dependencies = Omit<Books, 'clock'>;

/** A client asks with this label for the snapshot of that name, whatever key it gives. */
const SNAPSHOT_REF = 'containerd.io/snapshot.ref';

/**
 * A snapshotter seen from one namespace: that of the request. A snapshot's own record carries its name
 * as NAMESPACE/NAME (a namespace has no slash), so that none of ours has to go with it; the namespace
 * and the lease join its batch. A crash leaves all of them or nothing.
 */
export class NamespacedSnapshotter implements Snapshotter, Collectible {
  readonly type: string;
  readonly #name: string;
  readonly #backend: Backend;
  readonly #dependencies: Dependencies;

  constructor(name: string, backend: Backend, dependencies: Dependencies) {
    this.#name = name;
    this.type = `snapshots/${name}`;
    this.#backend = backend;
    this.#dependencies = dependencies;
    dependencies.namespaces.addOccupant((namespace) =>
      backend.anyBelow(`${namespace}/`) ? `snapshots on "${name}" snapshotter` : undefined,
    );
  }

  async stat(ctx: RequestContext, key: string): Promise<Info> {
    return within(ctx, async (own) => own.info(await this.#backend.stat(ctx, own.name(key))));
  }

  async update(
    ctx: RequestContext,
    { name, labels }: { readonly name: string; readonly labels: Labels },
    fieldPaths: readonly string[],
  ): Promise<Info> {
    return within(ctx, async (own) => {
      checkLabels(labels);
      const change = { name: own.name(name), labels };
      const along: Along = (tx) => {
        this.#dependencies.gc.touch(this.#node(own.namespace, name), tx);
        return () => undefined;
      };
      return own.info(await this.#backend.update(ctx, change, fieldPaths, along));
    });
  }

  async usage(ctx: RequestContext, key: string): Promise<Usage> {
    return within(ctx, (own) => this.#backend.usage(ctx, own.name(key)));
  }

  async mounts(ctx: RequestContext, key: string): Promise<readonly Mount[]> {
    return within(ctx, (own) => this.#backend.mounts(ctx, own.name(key)));
  }

  async prepare(
    ctx: RequestContext,
    key: string,
    parent: string,
    labels: Labels,
  ): Promise<readonly Mount[]> {
    const mounts = await this.#create('prepare', ctx, { key, parent, labels });
    this.#dependencies.events.publish(requireNamespace(ctx), {
      type: 'SnapshotPrepare',
      key,
      parent,
      snapshotter: this.#name,
    });
    return mounts;
  }

  view(
    ctx: RequestContext,
    key: string,
    parent: string,
    labels: Labels,
  ): Promise<readonly Mount[]> {
    return this.#create('view', ctx, { key, parent, labels });
  }

  async commit(
    ctx: RequestContext,
    name: string,
    key: string,
    labels: Labels,
    parent: string,
  ): Promise<void> {
    await within(ctx, async (own) => {
      checkLabels(labels);
      const { leases, gc, events } = this.#dependencies;
      leases.require(ctx);
      using _key = gc.hold(this.#node(own.namespace, key));
      using _parent = gc.hold(this.#node(own.namespace, parent));
      const along: Along = (tx) => {
        gc.touch(this.#node(own.namespace, name), tx);
        leases.keep(tx, ctx, this.#resource(name));
        leases.forget(tx, ctx, this.#resource(key));
        return () => undefined;
      };
      await this.#leasedIfThere(ctx, name, () =>
        this.#backend.commit(ctx, own.name(name), own.name(key), labels, own.name(parent), along),
      );
      events.publish(own.namespace, {
        type: 'SnapshotCommit',
        key,
        name,
        snapshotter: this.#name,
      });
    });
  }

  async remove(ctx: RequestContext, key: string): Promise<void> {
    await within(ctx, async (own) => {
      const { leases, gc, events } = this.#dependencies;
      await this.#backend.remove(ctx, own.name(key), (tx) => {
        gc.freed(tx);
        leases.forget(tx, ctx, this.#resource(key));
        return () => undefined;
      });
      events.publish(own.namespace, { type: 'SnapshotRemove', key, snapshotter: this.#name });
    });
  }

  async *walk(ctx: RequestContext, filters: readonly string[]): AsyncIterable<Info> {
    const own = new OwnNames(requireNamespace(ctx));
    const matches = await compileFilters(filters);
    const found: Info[] = [];
    for await (const info of this.#backend.walk(ctx, [])) {
      if (!own.has(info.name)) continue;
      const shown = own.info(info);
      if (matches(adaptSnapshot(shown))) found.push(shown);
    }
    // By name, as containerd's are.
    yield* found.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  async cleanup(ctx: RequestContext): Promise<void> {
    requireNamespace(ctx);
    await this.#backend.cleanup(ctx);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#backend[Symbol.asyncDispose]();
  }

  #create(
    verb: 'prepare' | 'view',
    ctx: RequestContext,
    { key, parent, labels }: { key: string; parent: string; labels: Labels },
  ): Promise<readonly Mount[]> {
    return within(ctx, async (own) => {
      checkLabels(labels);
      const { namespaces, leases, gc } = this.#dependencies;
      leases.require(ctx);
      using _key = gc.hold(this.#node(own.namespace, key));
      using _parent = gc.hold(this.#node(own.namespace, parent));
      const target = labels.get(SNAPSHOT_REF);
      if (target !== undefined && (await this.#isThere(ctx, own.name(target)))) {
        return this.#leasedIfThere(ctx, target, () => {
          throw alreadyExists(`snapshot ${quote(target)}`);
        });
      }
      const along: Along = (tx) => {
        namespaces.ensure(tx, own.namespace);
        gc.touch(this.#node(own.namespace, key), tx);
        leases.keep(tx, ctx, this.#resource(key));
        return (later) => leases.forget(later, ctx, this.#resource(key));
      };
      return this.#leasedIfThere(ctx, key, () =>
        this.#backend[verb](ctx, own.name(key), own.name(parent), labels, along),
      );
    });
  }

  async #isThere(ctx: RequestContext, name: string): Promise<boolean> {
    try {
      await this.#backend.stat(ctx, name);
      return true;
    } catch (error) {
      if (isOpError(error, 'NotFound')) return false;
      throw error;
    }
  }

  /** Who is told that a snapshot is there already goes on with it: the lease keeps it from then on. */
  async #leasedIfThere<T>(ctx: RequestContext, key: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (ctx.leaseId !== undefined && isOpError(error, 'AlreadyExists')) {
        const { metadata, leases } = this.#dependencies;
        await metadata.update((tx) => leases.keep(tx, ctx, this.#resource(key)));
      }
      throw error;
    }
  }

  *nodes(): Iterable<Node> {
    for (const name of this.#backend.names()) {
      const slash = name.indexOf('/');
      yield this.#node(name.slice(0, slash), name.slice(slash + 1));
    }
  }

  find(namespace: string, key: string): Vertex | undefined {
    const own = new OwnNames(namespace);
    const found = this.#backend.find(own.name(key));
    if (found === undefined) return undefined;
    const { labels, parent, createdAt } = own.info(found);
    const refersTo = parent === '' ? [] : [this.#node(namespace, parent)];
    return { root: 'with gc.root', createdAt, labels, refersTo };
  }

  async weigh(namespace: string, key: string): Promise<Weight> {
    try {
      const { size } = await this.#backend.usage(background, new OwnNames(namespace).name(key));
      return { bytes: size };
    } catch (error) {
      if (!isOpError(error, 'NotFound')) throw error;
      return { bytes: 0 };
    }
  }

  discard(tx: WriteTx, namespace: string, key: string): Discarded | undefined {
    const thrownAway = this.#backend.discard(tx, new OwnNames(namespace).name(key));
    if (thrownAway === undefined) return undefined;
    return () => {
      thrownAway();
      const { events } = this.#dependencies;
      events.publish(namespace, { type: 'SnapshotRemove', key, snapshotter: this.#name });
    };
  }

  #node(namespace: string, key: string): Node {
    return { type: this.type, namespace, key };
  }

  #resource(id: string): Resource {
    return { type: this.type, id };
  }
}

/** The names of one namespace, as the backend has them and as its clients do. */
class OwnNames {
  readonly namespace: string;
  readonly #prefix: string;

  constructor(namespace: string) {
    this.namespace = namespace;
    this.#prefix = `${namespace}/`;
  }

  /** No name stays none. */
  name(name: string): string {
    return name === '' ? '' : this.#prefix + name;
  }
  has(name: string): boolean {
    return name.startsWith(this.#prefix);
  }
  info(info: Info): Info {
    const { length } = this.#prefix;
    return { ...info, name: info.name.slice(length), parent: info.parent.slice(length) };
  }
  /** The backend's message quotes names as it has them. */
  error(error: OpError): OpError {
    const message = error.message.replaceAll(`"${this.#prefix}`, '"');
    return new OpError(error.code, message, { cause: error });
  }
}

async function within<T>(ctx: RequestContext, work: (own: OwnNames) => Promise<T>): Promise<T> {
  const own = new OwnNames(requireNamespace(ctx));
  try {
    return await work(own);
  } catch (error) {
    throw isOpError(error) ? own.error(error) : error;
  }
}
