import type { RequestContext } from '../base/context.ts';
import { notFound, OpError, quote } from '../base/errors.ts';
import { updateLabels } from '../base/fieldpaths.ts';
import { adaptContainer, compileFilters } from '../base/filters.ts';
import { checkIdentifier, requireNamespace } from '../base/identifiers.ts';
import { checkLabels, labelsFromPairs, withoutEmptyLabels } from '../base/labels.ts';
import type { Any } from '../events/event.ts';
import type { Collectible, Node, Vertex } from '../gc/collectible.ts';
import { create, labelsToRecord, NamespacedRecords } from '../metadata/namespaced-records.ts';
import type { Container, ContainerDraft, ContainerStore } from './container.ts';
import type { Books } from '../namespaces/books.ts';

/** A type and its bytes in base64. */
type AnyRecord = readonly [string, string];

interface ContainerRecord {
  readonly labels?: readonly (readonly [string, string])[];
  readonly image: string;
  readonly runtime: { readonly name: string; readonly options?: AnyRecord };
  readonly spec?: AnyRecord;
  readonly snapshotter: string;
  readonly snapshotKey: string;
  readonly extensions?: readonly (readonly [string, AnyRecord])[];
  readonly sandbox: string;
  readonly created: string;
  readonly updated: string;
}

type Dependencies = Omit<Books, 'leases'>;

const MUTABLE = ['labels', 'spec', 'extensions', 'image', 'snapshotkey'];

/** Each change is one batch: the container and its namespace. A crash leaves both or neither. */
export class LocalContainerStore implements ContainerStore, Collectible {
  readonly type = 'containers';
  readonly #containers: NamespacedRecords<Container>;
  readonly #dependencies: Dependencies;

  private constructor(containers: NamespacedRecords<Container>, dependencies: Dependencies) {
    this.#containers = containers;
    this.#dependencies = dependencies;
    dependencies.namespaces.addOccupant((name) =>
      containers.any(name) ? 'containers' : undefined,
    );
  }

  static async open(dependencies: Dependencies): Promise<LocalContainerStore> {
    const containers = await NamespacedRecords.load<Container>(dependencies.metadata, 'container', {
      encode: toRecord,
      decode: (value, id) => fromRecord(value as ContainerRecord, id),
    });
    return new LocalContainerStore(containers, dependencies);
  }

  async get(ctx: RequestContext, id: string): Promise<Container> {
    return this.#get(requireNamespace(ctx), id);
  }

  async list(ctx: RequestContext, filters: readonly string[]): Promise<readonly Container[]> {
    const namespace = requireNamespace(ctx);
    const matches = await compileFilters(filters);
    return this.#containers
      .sorted(namespace)
      .filter((container) => matches(adaptContainer(container)));
  }

  async create(ctx: RequestContext, draft: ContainerDraft): Promise<Container> {
    const namespace = requireNamespace(ctx);
    const { metadata, namespaces, clock, gc, events } = this.#dependencies;
    check(draft);
    const { id, image, runtime } = draft;
    const now = clock.now();
    const labels = withoutEmptyLabels(draft.labels);
    const container = { ...draft, labels, createdAt: now, updatedAt: now };
    await create(metadata, (tx) => {
      namespaces.ensure(tx, namespace);
      this.#containers.add(tx, namespace, id, container);
      gc.touch({ type: this.type, namespace, key: id }, tx);
    });
    events.publish(namespace, { type: 'ContainerCreate', id, image, runtime });
    return container;
  }

  async update(
    ctx: RequestContext,
    change: ContainerDraft,
    fieldPaths: readonly string[],
  ): Promise<Container> {
    const namespace = requireNamespace(ctx);
    const { metadata, clock, gc, events } = this.#dependencies;
    if (change.id === '') throw new OpError('InvalidArgument', 'container id must not be empty');
    const updated = await metadata.update((tx) => {
      const changed = applied(this.#get(namespace, change.id), change, fieldPaths);
      check(changed);
      const container = { ...changed, updatedAt: clock.now() };
      this.#containers.put(tx, namespace, container.id, container);
      gc.touch({ type: this.type, namespace, key: container.id }, tx);
      gc.freed(tx);
      return container;
    });
    const { id, image, labels, snapshotKey } = updated;
    events.publish(namespace, { type: 'ContainerUpdate', id, image, labels, snapshotKey });
    return updated;
  }

  async delete(ctx: RequestContext, id: string): Promise<void> {
    const namespace = requireNamespace(ctx);
    const { metadata, gc, events } = this.#dependencies;
    await metadata.update(
      (tx) => {
        this.#get(namespace, id);
        this.#containers.delete(tx, namespace, id);
        gc.freed(tx);
      },
      { frees: true },
    );
    events.publish(namespace, { type: 'ContainerDelete', id });
  }

  *nodes(): Iterable<Node> {
    for (const [namespace, key] of this.#containers.names()) {
      yield { type: this.type, namespace, key };
    }
  }

  find(namespace: string, key: string): Vertex | undefined {
    const container = this.#containers.get(namespace, key);
    if (container === undefined) return undefined;
    const { snapshotter, snapshotKey, labels, createdAt } = container;
    const snapshot = { type: `snapshots/${snapshotter}`, namespace, key: snapshotKey };
    return { root: 'always', createdAt, labels, refersTo: snapshotter === '' ? [] : [snapshot] };
  }

  /** A container stays until it is deleted. */
  discard(): undefined {
    return undefined;
  }

  /** @throws OpError NotFound */
  #get(namespace: string, id: string): Container {
    const container = this.#containers.get(namespace, id);
    if (container === undefined) throw notFound(`container ${quote(id)}`);
    return container;
  }
}

/** @throws OpError InvalidArgument */
function applied(
  container: Container,
  change: ContainerDraft,
  fieldPaths: readonly string[],
): Container {
  if (fieldPaths.length === 0) refuseImmutable(container, change);
  return (fieldPaths.length === 0 ? MUTABLE : fieldPaths).reduce(
    (changed, path) => ({ ...changed, ...fieldsAt(path, changed, change) }),
    container,
  );
}

function refuseImmutable(container: Container, change: ContainerDraft): void {
  const fields = [
    ['snapshotter', container.snapshotter === change.snapshotter],
    ['runtime', container.runtime.name === change.runtime.name],
  ] as const;
  for (const [field, isSame] of fields) {
    if (isSame) continue;
    throw new OpError(
      'InvalidArgument',
      `container ${quote(container.id)}: its ${field} is immutable`,
    );
  }
}

function fieldsAt(path: string, container: Container, change: ContainerDraft): Partial<Container> {
  if (path === 'labels' || path.startsWith('labels.')) {
    return { labels: updateLabels(container.labels, change.labels, [path]) };
  }
  if (path.startsWith('extensions.')) {
    const key = path.slice('extensions.'.length);
    const extensions = new Map(container.extensions);
    const value = change.extensions.get(key);
    if (value === undefined) extensions.delete(key);
    else extensions.set(key, value);
    return { extensions };
  }
  switch (path) {
    case 'spec':
      return { spec: change.spec };
    case 'extensions':
      return { extensions: change.extensions };
    case 'image':
      return { image: change.image };
    case 'snapshotkey':
      return { snapshotKey: change.snapshotKey };
    default:
      throw new OpError(
        'InvalidArgument',
        `container ${quote(container.id)}: field path ${quote(path)} cannot be updated, use ${MUTABLE.join(', ')}, labels.KEY or extensions.KEY`,
      );
  }
}

/** @throws OpError InvalidArgument */
function check(container: ContainerDraft): void {
  const { id, labels, extensions, runtime, spec, snapshotter, snapshotKey } = container;
  checkIdentifier('container id', id);
  checkLabels(labels);
  const refuse = (what: string): OpError =>
    new OpError('InvalidArgument', `container ${quote(id)}: ${what}`);
  if (extensions.has('')) throw refuse('an extension needs a name');
  if (runtime.name === '') throw refuse('runtime must be set');
  if (spec === undefined) throw refuse('spec must be set');
  if (snapshotKey !== '' && snapshotter === '') {
    throw refuse('snapshotter must be set where snapshot key is');
  }
}

const anyToRecord = ({ typeUrl, value }: Any): AnyRecord => [
  typeUrl,
  Buffer.from(value).toString('base64'),
];
const anyFromRecord = ([typeUrl, value]: AnyRecord): Any => ({
  typeUrl,
  value: new Uint8Array(Buffer.from(value, 'base64')),
});

function toRecord(container: Container): ContainerRecord {
  const { labels, image, runtime, spec, snapshotter, snapshotKey, sandbox } = container;
  const extensions = Array.from(
    container.extensions,
    ([key, value]) => [key, anyToRecord(value)] as const,
  );
  return {
    ...labelsToRecord(labels),
    image,
    runtime: {
      name: runtime.name,
      ...(runtime.options === undefined ? {} : { options: anyToRecord(runtime.options) }),
    },
    ...(spec === undefined ? {} : { spec: anyToRecord(spec) }),
    snapshotter,
    snapshotKey,
    ...(extensions.length === 0 ? {} : { extensions }),
    sandbox,
    created: String(container.createdAt),
    updated: String(container.updatedAt),
  };
}

function fromRecord(record: ContainerRecord, id: string): Container {
  const { image, runtime, spec, snapshotter, snapshotKey, sandbox } = record;
  const { options } = runtime;
  return {
    id,
    labels: labelsFromPairs(record.labels),
    image,
    runtime: {
      name: runtime.name,
      options: options === undefined ? undefined : anyFromRecord(options),
    },
    spec: spec === undefined ? undefined : anyFromRecord(spec),
    snapshotter,
    snapshotKey,
    extensions: new Map(record.extensions?.map(([key, value]) => [key, anyFromRecord(value)])),
    sandbox,
    createdAt: BigInt(record.created),
    updatedAt: BigInt(record.updated),
  };
}
