import type { Clock } from '../base/clock.ts';
import type { RequestContext } from '../base/context.ts';
import { alreadyExists, isOpError, notFound, OpError, quote } from '../base/errors.ts';
import { NO_LABELS } from '../base/labels.ts';
import type { Collectible, Discarded, GcNotes, Node, Vertex } from '../gc/collectible.ts';
import type { LeaseBook } from '../leases/lease.ts';
import type { WriteTx } from '../metadata/metadata.ts';
import type { Stream, StreamRegistry } from './stream.ts';

interface Dependencies {
  readonly leases: LeaseBook;
  readonly gc: GcNotes;
  readonly clock: Clock;
}

interface Registered {
  readonly stream: Stream;
  readonly ctx: RequestContext;
  readonly createdAt: bigint;
}

/** In memory only: a stream is as long as its connection at most. */
export class LocalStreamRegistry implements StreamRegistry, Collectible {
  readonly type = 'streams';
  /** By namespace, '' without one, and name. */
  readonly #streams = new Map<string, Map<string, Registered>>();
  readonly #dependencies: Dependencies;

  constructor(dependencies: Dependencies) {
    this.#dependencies = dependencies;
  }

  register(ctx: RequestContext, name: string, stream: Stream): Disposable {
    if (name === '') throw new OpError('InvalidArgument', 'a stream needs an id: it is empty');
    const namespace = ctx.namespace ?? '';
    const streams = this.#streams.get(namespace) ?? new Map<string, Registered>();
    if (streams.has(name)) throw alreadyExists(`stream ${quote(name)}`);
    this.#streams.set(namespace, streams);
    streams.set(name, { stream, ctx, createdAt: this.#dependencies.clock.now() });
    this.#dependencies.gc.touch({ type: this.type, namespace, key: name });
    return {
      [Symbol.dispose]: () => {
        streams.delete(name);
        if (streams.size === 0 && this.#streams.get(namespace) === streams) {
          this.#streams.delete(namespace);
        }
      },
    };
  }

  get(ctx: RequestContext, name: string): Stream {
    const found = this.#streams.get(ctx.namespace ?? '')?.get(name);
    if (found === undefined) throw notFound(`stream ${quote(name)}`);
    return found.stream;
  }

  *nodes(): Iterable<Node> {
    for (const [namespace, streams] of this.#streams) {
      for (const key of streams.keys()) yield { type: this.type, namespace, key };
    }
  }

  find(namespace: string, key: string): Vertex | undefined {
    const found = this.#streams.get(namespace)?.get(key);
    if (found === undefined) return undefined;
    const root = this.#isKept(found.ctx) ? 'always' : { until: 0n };
    return { root, createdAt: found.createdAt, labels: NO_LABELS, refersTo: [] };
  }

  discard(_tx: WriteTx, namespace: string, key: string): Discarded | undefined {
    const found = this.#streams.get(namespace)?.get(key);
    return found === undefined ? undefined : () => found.stream.close();
  }

  /** By its lease, or by itself. */
  #isKept(ctx: RequestContext): boolean {
    try {
      this.#dependencies.leases.require(ctx);
      return true;
    } catch (error) {
      if (isOpError(error, 'NotFound')) return false;
      throw error;
    }
  }
}
