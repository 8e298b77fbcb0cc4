import { quote } from '../../../base/errors.ts';
import { CONTENT_PLUGIN_NAME } from '../render/containerd-config.ts';
import {
  type BallastFacts,
  type ContainerdFacts,
  CONTENT_TYPE,
  type NamespaceFacts,
  type PluginFact,
  SNAPSHOTTER_TYPE,
} from './facts.ts';

/** `fault`: it does not work, or something is lost. `note`: fine if it is meant so. */
export interface Finding {
  readonly kind: 'fine' | 'note' | 'fault';
  readonly text: string;
}

const fine = (text: string): Finding => ({ kind: 'fine', text });
const note = (text: string): Finding => ({ kind: 'note', text });
const fault = (text: string): Finding => ({ kind: 'fault', text });

/** How many names a finding lists before it only counts. */
const NAMES_MAX = 5;
/** On an image's config blob: the snapshot of its topmost layer. */
const SNAPSHOT_LABEL = 'containerd.io/gc.ref.snapshot.';

/** What an operator should know about a containerd and the ballast behind it. */
export function compare(containerd: ContainerdFacts, ballast: BallastFacts): readonly Finding[] {
  const ours = ballast.plugins.filter(({ type }) => type === SNAPSHOTTER_TYPE);
  const usesContent = containerd.plugins.some((plugin) => isOurContent(plugin, ballast));
  return [
    ...ours.map((plugin) => loaded(plugin, containerd, ballast)),
    ...capabilities(ours, containerd),
    ...strangers(ours, containerd, ballast),
    ...contentFindings(containerd, ballast, usesContent),
    ...containerd.namespaces.flatMap((namespace) => [
      ...missingSnapshots(namespace, ballast),
      ...(usesContent ? missingBlobs(namespace, ballast) : []),
    ]),
    ...leftOverSnapshots(containerd, ballast),
    ...(usesContent ? leftOverBlobs(containerd, ballast) : []),
  ];
}

/**
 * What containerd knew before and still knows later: what a collection removed between the two is missing
 * nowhere.
 */
export const lasting = (
  before: readonly NamespaceFacts[],
  later: readonly NamespaceFacts[],
): readonly NamespaceFacts[] =>
  before.map((namespace) => {
    const still = later.find(({ name }) => name === namespace.name);
    const ids = new Set(still?.containers.map(({ id }) => id));
    return {
      ...namespace,
      blobs: new Map([...namespace.blobs].filter(([digest]) => still?.blobs.has(digest))),
      containers: namespace.containers.filter(({ id }) => ids.has(id)),
    };
  });

/** Whether containerd has loaded one of our snapshotters, and reaches us by it. */
function loaded(ours: PluginFact, containerd: ContainerdFacts, ballast: BallastFacts): Finding {
  const { id } = ours;
  if (ours.error !== undefined)
    return fault(`snapshotter ${id}: ballast cannot serve it: ${ours.error}`);
  const theirs = containerd.plugins.find((plugin) => isSnapshotter(plugin, id));
  if (theirs === undefined) {
    return fault(
      `snapshotter ${id}: containerd does not know it; put what \`ballast config print containerd\` prints into its config, and restart it`,
    );
  }
  if (theirs.error !== undefined) {
    return fault(`snapshotter ${id}: containerd could not load it: ${theirs.error}`);
  }
  if (theirs.address !== undefined && theirs.address !== ballast.socket) {
    return fault(
      `snapshotter ${id}: containerd's config sends it to ${theirs.address}, ballast answers on ${ballast.socket}`,
    );
  }
  return fine(`snapshotter ${id}: containerd has loaded it`);
}

function capabilities(
  ours: readonly PluginFact[],
  containerd: ContainerdFacts,
): readonly Finding[] {
  return ours.flatMap(({ id, capabilities: can }) => {
    const theirs = containerd.plugins.find((plugin) => isSnapshotter(plugin, id));
    // containerd 1.6 has no such key.
    if (theirs === undefined || containerd.version.startsWith('1.6.')) return [];
    const claimed = theirs.capabilities.toSorted().join(', ');
    const real = can.toSorted().join(', ');
    if (claimed === real) return [];
    return [
      note(
        `snapshotter ${id}: containerd's config says capabilities [${claimed}], ballast has [${real}]; print the drop-in again`,
      ),
    ];
  });
}

/** Proxy plugins that lead to our socket and that we know nothing of. */
function strangers(
  ours: readonly PluginFact[],
  containerd: ContainerdFacts,
  ballast: BallastFacts,
): readonly Finding[] {
  return containerd.plugins
    .filter(({ type, address }) => type === SNAPSHOTTER_TYPE && address === ballast.socket)
    .filter(({ id }) => ours.every((plugin) => plugin.id !== id))
    .map(({ id }) =>
      fault(
        `snapshotter ${id}: containerd sends it to ballast, whose config has no [snapshotter.${id}]`,
      ),
    );
}

function contentFindings(
  containerd: ContainerdFacts,
  ballast: BallastFacts,
  usesContent: boolean,
): readonly Finding[] {
  const stores = containerd.plugins.filter(({ type }) => type === CONTENT_TYPE);
  const [store] = stores;
  if (usesContent) {
    const broken = stores.find(
      (plugin) => isOurContent(plugin, ballast) && plugin.error !== undefined,
    );
    return [
      broken === undefined
        ? fine('content: containerd keeps its blobs in ballast')
        : fault(`content: containerd could not load our content store: ${broken.error}`),
    ];
  }
  return [
    note(`content: containerd keeps its blobs in a store of its own (${store?.id ?? 'none'})`),
  ];
}

function missingSnapshots(namespace: NamespaceFacts, ballast: BallastFacts): readonly Finding[] {
  const wanted = new Map<string, Map<string, string>>();
  const want = (snapshotter: string, key: string, by: string): void => {
    if (!ballast.snapshots.has(snapshotter)) return;
    const keys = wanted.get(snapshotter) ?? new Map<string, string>();
    wanted.set(snapshotter, keys.set(key, by));
  };
  for (const [digest, labels] of namespace.blobs) {
    for (const [label, key] of labels) {
      if (!label.startsWith(SNAPSHOT_LABEL)) continue;
      // A client may add /SUFFIX to tell several references of one blob apart.
      const [snapshotter = ''] = label.slice(SNAPSHOT_LABEL.length).split('/');
      want(snapshotter, key, `an image with the config ${digest}`);
    }
  }
  for (const { id, snapshotter, snapshotKey } of namespace.containers) {
    want(snapshotter, snapshotKey, `the container ${quote(id)}`);
  }
  return [...wanted].flatMap(([snapshotter, keys]) => {
    const held = keysIn(namespace.name, ballast.snapshots.get(snapshotter) ?? new Set());
    const missing = [...keys].filter(([key]) => !held.has(key));
    if (missing.length === 0) return [];
    const list = missing.map(([key, by]) => `${quote(key)} of ${by}`);
    return [
      fault(
        `namespace ${namespace.name}: not in ballast: ${count(missing, 'snapshot')} of ${snapshotter}: ${some(list)}; unpack such an image again (ctr -n ${namespace.name} images unpack --snapshotter ${snapshotter} IMAGE), make such a container anew`,
      ),
    ];
  });
}

function missingBlobs(namespace: NamespaceFacts, ballast: BallastFacts): readonly Finding[] {
  const missing = [...namespace.blobs.keys()].filter((digest) => !ballast.blobs.has(digest));
  if (missing.length === 0) return [];
  return [
    fault(
      `namespace ${namespace.name}: not in ballast: ${count(missing, 'blob')}: ${some(missing)}; move them from the store that has them (docs/operations.md), or pull the images again`,
    ),
  ];
}

/** What containerd has no record of its next collection removes, all by itself. */
function leftOverSnapshots(containerd: ContainerdFacts, ballast: BallastFacts): readonly Finding[] {
  return [...ballast.snapshots].flatMap(([snapshotter, names]) => {
    const known = new Set(
      containerd.namespaces.flatMap(({ name, snapshots }) =>
        [...(snapshots.get(snapshotter) ?? [])].map((key) => `${name}/${key}`),
      ),
    );
    const unknown = [...names].filter((name) => !known.has(withoutNumber(name)));
    return leftOver(unknown, 'snapshot', ` of ${snapshotter}`);
  });
}

function leftOverBlobs(containerd: ContainerdFacts, ballast: BallastFacts): readonly Finding[] {
  const known = new Set(containerd.namespaces.flatMap(({ blobs }) => [...blobs.keys()]));
  return leftOver(
    [...ballast.blobs].filter((digest) => !known.has(digest)),
    'blob',
  );
}

const leftOver = (unknown: readonly string[], what: string, of = ''): readonly Finding[] =>
  unknown.length === 0
    ? []
    : [
        note(
          `ballast holds what containerd does not know, and will remove when it collects: ${count(unknown, what)}${of}: ${some(unknown)}`,
        ),
      ];

const isSnapshotter = ({ type, id }: PluginFact, wanted: string): boolean =>
  type === SNAPSHOTTER_TYPE && id === wanted;

const isOurContent = ({ type, id, address }: PluginFact, { socket }: BallastFacts): boolean =>
  type === CONTENT_TYPE &&
  (address === undefined ? id === CONTENT_PLUGIN_NAME : address === socket);

/** Client keys of one namespace: containerd names a snapshot `NAMESPACE/NUMBER/KEY` to its plugins. */
function keysIn(namespace: string, names: ReadonlySet<string>): ReadonlySet<string> {
  const prefix = `${namespace}/`;
  const plain = [...names].filter((name) => name.startsWith(prefix)).map(withoutNumber);
  return new Set(plain.map((name) => name.slice(prefix.length)));
}

/** `NAMESPACE/KEY` of `NAMESPACE/NUMBER/KEY`; a namespace has no slash, a key may have. */
const withoutNumber = (name: string): string => name.replace(/^([^/]*)\/\d+\//, '$1/');

const count = (all: readonly unknown[], what: string): string =>
  `${all.length} ${what}${all.length === 1 ? '' : 's'}`;

const some = (names: readonly string[]): string =>
  names.length <= NAMES_MAX
    ? names.join(', ')
    : `${names.slice(0, NAMES_MAX).join(', ')} and ${names.length - NAMES_MAX} more`;
