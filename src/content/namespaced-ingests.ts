import { background } from '../base/context.ts';
import { NO_LABELS } from '../base/labels.ts';
import type { Collectible, Discarded, Node, RootRule, Vertex, Weight } from '../gc/collectible.ts';
import type { MetadataStore, WriteTx } from '../metadata/metadata.ts';
import { NamespacedRecords } from '../metadata/namespaced-records.ts';
import type { ContentStore, Status } from './content.ts';

/** What it stands on: the ingests of all namespaces, with refs NAMESPACE/REF. */
interface Backend extends Pick<ContentStore, 'abort'> {
  refs(): Iterable<string>;
  findIngest(ref: string): (Status & { readonly hasWriter: boolean }) | undefined;
}

interface Dependencies {
  readonly metadata: MetadataStore;
  readonly warn: (fields: Record<string, unknown>, message: string) => void;
}

/** How long an ingest is kept that no lease keeps, since it was last written; as long as containerd does. */
const INGEST_NS = 24n * 3600n * 1_000_000_000n;

/** Ingests as a collector sees them. One that was last opened with a lease is kept by leases alone. */
export class NamespacedIngests implements Collectible {
  readonly type = 'ingests';
  readonly #backend: Backend;
  readonly #leased: NamespacedRecords<boolean>;
  readonly #dependencies: Dependencies;

  private constructor(
    backend: Backend,
    leased: NamespacedRecords<boolean>,
    dependencies: Dependencies,
  ) {
    this.#backend = backend;
    this.#leased = leased;
    this.#dependencies = dependencies;
  }

  static async open(backend: Backend, dependencies: Dependencies): Promise<NamespacedIngests> {
    const leased = await NamespacedRecords.load<boolean>(dependencies.metadata, 'leased-ingest', {
      encode: () => 1,
      decode: () => true,
    });
    return new NamespacedIngests(backend, leased, dependencies);
  }

  node(namespace: string, key: string): Node {
    return { type: this.type, namespace, key };
  }
  isLeased(namespace: string, ref: string): boolean {
    return this.#leased.get(namespace, ref) === true;
  }
  setLeased(tx: WriteTx, namespace: string, ref: string, isLeased: boolean): void {
    if (isLeased === this.isLeased(namespace, ref)) return;
    if (isLeased) this.#leased.put(tx, namespace, ref, true);
    else this.#leased.delete(tx, namespace, ref);
  }

  *nodes(): Iterable<Node> {
    for (const ref of this.#backend.refs()) {
      const slash = ref.indexOf('/');
      yield this.node(ref.slice(0, slash), ref.slice(slash + 1));
    }
  }

  find(namespace: string, key: string): Vertex | undefined {
    const found = this.#backend.findIngest(`${namespace}/${key}`);
    if (found === undefined) return undefined;
    const root = this.#rootRule(namespace, key, found);
    return { root, createdAt: found.startedAt, labels: NO_LABELS, refersTo: [] };
  }

  weigh(namespace: string, key: string): Weight {
    return { bytes: this.#backend.findIngest(`${namespace}/${key}`)?.offset ?? 0 };
  }

  #rootRule(
    namespace: string,
    ref: string,
    { hasWriter, updatedAt }: Status & { readonly hasWriter: boolean },
  ): RootRule {
    if (hasWriter) return 'always';
    // It has no labels: only a lease keeps it.
    if (this.isLeased(namespace, ref)) return 'with gc.root';
    return { until: updatedAt + INGEST_NS };
  }

  /** The bytes go at once, as nothing durable was promised for them. */
  discard(tx: WriteTx, namespace: string, key: string): Discarded | undefined {
    const ref = `${namespace}/${key}`;
    const found = this.#backend.findIngest(ref);
    if (found === undefined || found.hasWriter) return undefined;
    const aborted = this.#backend.abort(background, ref).catch((error: unknown) => {
      this.#dependencies.warn({ ref, error }, 'an ingest could not be collected');
    });
    this.setLeased(tx, namespace, key, false);
    return () => aborted;
  }

  /** A crash takes ingests that were in memory, not what was recorded of them. */
  async forgetGone(): Promise<void> {
    const gone = [...this.#leased.names()].filter(
      ([namespace, ref]) => this.#backend.findIngest(`${namespace}/${ref}`) === undefined,
    );
    if (gone.length === 0) return;
    await this.#dependencies.metadata.update(
      (tx) => {
        for (const [namespace, ref] of gone) {
          const isBack = this.#backend.findIngest(`${namespace}/${ref}`) !== undefined;
          if (!isBack) this.setLeased(tx, namespace, ref, false);
        }
      },
      { frees: true },
    );
  }
}
