import { expect, test } from 'vitest';

import { compare, type Finding, lasting } from './compare.ts';
import {
  type BallastFacts,
  type ContainerdFacts,
  CONTENT_TYPE,
  type NamespaceFacts,
  type PluginFact,
  SNAPSHOTTER_TYPE,
} from './facts.ts';

const SOCKET = '/run/ballast/plugin.sock';

const plugin = (type: string, id: string, more: Partial<PluginFact> = {}): PluginFact => ({
  type,
  id,
  capabilities: [],
  address: undefined,
  error: undefined,
  ...more,
});

const proxied = (type: string, id: string, more: Partial<PluginFact> = {}): PluginFact =>
  plugin(type, id, { address: SOCKET, ...more });

const namespace = (more: Partial<NamespaceFacts> = {}): NamespaceFacts => ({
  name: 'default',
  blobs: new Map(),
  snapshots: new Map(),
  containers: [],
  ...more,
});

const containerd = (more: Partial<ContainerdFacts> = {}): ContainerdFacts => ({
  version: '2.1.9',
  plugins: [proxied(SNAPSHOTTER_TYPE, 'fast'), proxied(CONTENT_TYPE, 'ballast-content')],
  namespaces: [],
  ...more,
});

const ballast = (more: Partial<BallastFacts> = {}): BallastFacts => ({
  version: '0.1.0',
  socket: SOCKET,
  plugins: [plugin(SNAPSHOTTER_TYPE, 'fast')],
  blobs: new Set(),
  snapshots: new Map([['fast', new Set<string>()]]),
  ...more,
});

const texts = (findings: readonly Finding[], kind: Finding['kind']): readonly string[] =>
  findings.filter((finding) => finding.kind === kind).map(({ text }) => text);

test('a containerd that has loaded everything and misses nothing has no fault', () => {
  const findings = compare(
    containerd({
      namespaces: [
        namespace({
          blobs: new Map([
            ['sha256:aa', new Map([['containerd.io/gc.ref.snapshot.fast', 'sha256:chain']])],
          ]),
          snapshots: new Map([['fast', new Set(['sha256:chain', 'a/b'])]]),
          containers: [{ id: 'web', snapshotter: 'fast', snapshotKey: 'a/b' }],
        }),
      ],
    }),
    ballast({
      blobs: new Set(['sha256:aa']),
      snapshots: new Map([['fast', new Set(['default/1/sha256:chain', 'default/12/a/b'])]]),
    }),
  );
  expect(findings.map(({ kind }) => kind)).toEqual(['fine', 'fine']);
});

test.for<[string, readonly PluginFact[], RegExp]>([
  ['is not in the config', [], /fast: containerd does not know it; put what `ballast config print/],
  [
    'could not be loaded',
    [proxied(SNAPSHOTTER_TYPE, 'fast', { error: 'no such socket' })],
    /could not load it: no such socket/,
  ],
  [
    'leads elsewhere',
    [plugin(SNAPSHOTTER_TYPE, 'fast', { address: '/run/old.sock' })],
    /sends it to \/run\/old\.sock, ballast answers on/,
  ],
])('a snapshotter that %s is a fault', ([, plugins, expected]) => {
  const faults = texts(compare(containerd({ plugins }), ballast()), 'fault');
  expect(faults).toEqual([expect.stringMatching(expected)]);
});

test('a snapshotter that ballast itself cannot serve is a fault, with the reason', () => {
  const broken = plugin(SNAPSHOTTER_TYPE, 'fast', { error: 'read-only' });
  expect(texts(compare(containerd(), ballast({ plugins: [broken] })), 'fault')).toEqual([
    'snapshotter fast: ballast cannot serve it: read-only',
  ]);
});

test('a plugin that leads to ballast under a name it does not have is a fault', () => {
  const plugins = [...containerd().plugins, proxied(SNAPSHOTTER_TYPE, 'slow')];
  expect(texts(compare(containerd({ plugins }), ballast()), 'fault')).toEqual([
    expect.stringContaining('no [snapshotter.slow]'),
  ]);
});

test('capabilities that differ are noted, but not for 1.6, which has none', () => {
  const capable = ballast({
    plugins: [plugin(SNAPSHOTTER_TYPE, 'fast', { capabilities: ['remap-ids'] })],
  });
  expect(texts(compare(containerd(), capable), 'note')).toEqual([
    expect.stringContaining('capabilities [], ballast has [remap-ids]'),
  ]);
  expect(texts(compare(containerd({ version: '1.6.20' }), capable), 'note')).toEqual([]);
});

test('blobs that containerd knows and ballast lacks are a fault only where they belong to us', () => {
  const namespaces = [namespace({ blobs: new Map([['sha256:aa', new Map<string, string>()]]) })];
  expect(texts(compare(containerd({ namespaces }), ballast()), 'fault')).toEqual([
    expect.stringMatching(/^namespace default: not in ballast: 1 blob: sha256:aa;/),
  ]);
  const plugins = [proxied(SNAPSHOTTER_TYPE, 'fast'), plugin(CONTENT_TYPE, 'content')];
  const own = compare(containerd({ namespaces, plugins }), ballast());
  expect(texts(own, 'fault')).toEqual([]);
  expect(texts(own, 'note')).toEqual([expect.stringContaining('a store of its own (content)')]);
});

test('snapshots that images and containers need and ballast lacks are a fault', () => {
  const label = 'containerd.io/gc.ref.snapshot.fast/more';
  const namespaces = [
    namespace({
      name: 'k8s.io',
      blobs: new Map([
        ['sha256:aa', new Map([[label, 'sha256:chain']])],
        ['sha256:bb', new Map([['containerd.io/gc.ref.snapshot.overlayfs', 'sha256:other']])],
      ]),
      containers: [
        { id: 'web', snapshotter: 'fast', snapshotKey: 'web' },
        { id: 'db', snapshotter: 'overlayfs', snapshotKey: 'db' },
      ],
    }),
  ];
  const plugins = [proxied(SNAPSHOTTER_TYPE, 'fast'), plugin(CONTENT_TYPE, 'content')];
  // The same key in another namespace is another snapshot.
  const snapshots = new Map([['fast', new Set(['default/3/web'])]]);
  const faults = texts(
    compare(containerd({ namespaces, plugins }), ballast({ snapshots })),
    'fault',
  );
  expect(faults).toHaveLength(1);
  expect(faults[0]).toContain('namespace k8s.io: not in ballast: 2 snapshots of fast: ');
  expect(faults[0]).toContain('"sha256:chain" of an image with the config sha256:aa');
  expect(faults[0]).toContain('"web" of the container "web"');
});

test('what only ballast holds is noted, in short when it is much', () => {
  const blobs = new Set(Array.from({ length: 9 }, (_, index) => `sha256:${index}`));
  const snapshots = new Map([['fast', new Set(['default/7/old'])]]);
  const notes = texts(compare(containerd(), ballast({ blobs, snapshots })), 'note');
  expect(notes).toEqual([
    expect.stringMatching(
      /^ballast holds what containerd does not know, .*: 1 snapshot of fast: default\/7\/old$/,
    ),
    expect.stringMatching(/: 9 blobs: .* and 4 more$/),
  ]);
});

test('what containerd removed while both were asked is missing nowhere', () => {
  const blob = (key: string) => new Map([['containerd.io/gc.ref.snapshot.fast', key]]);
  const container = (id: string) => ({ id, snapshotter: 'fast', snapshotKey: id });
  const before = namespace({
    blobs: new Map([
      ['sha256:kept', blob('kept chain')],
      ['sha256:removed', blob('removed chain')],
    ]),
    containers: [container('kept'), container('removed')],
  });
  const later = namespace({
    blobs: new Map([['sha256:kept', blob('kept chain')]]),
    containers: [container('kept')],
  });
  const removedNamespace = namespace({ name: 'removed', containers: [container('of it')] });
  const namespaces = lasting([before, removedNamespace], [later]);
  const faults = texts(compare(containerd({ namespaces }), ballast()), 'fault').join('\n');
  for (const missing of ['sha256:kept', '"kept chain"', '"kept"'])
    expect(faults).toContain(missing);
  expect(faults).not.toMatch(/removed|of it/);
});
