// Transfer and Streaming as a client of our own asks them, ballast alone beside a containerd 2.x: good, broken and
// hostile archives, and requests that ctr never makes. What they come to is equal, codes of errors included, but
// for those that a containerd calls Unknown: here they have a better word.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { isOpError, type ErrorCode } from '../../src/base/errors.ts';
import type { containerd } from '../../src/grpc/gen/wire.js';
import { RELEASES } from '../interop/containerd.ts';
import { END, rawEntry } from '../support/tar.ts';
import {
  digestOf,
  dockerArchive,
  json,
  LAYER,
  Layout,
  named,
  severalImages,
  tarOf,
  type TestDescriptor,
} from './archives.ts';
import { Alone, plainContainerd } from './site.ts';
import { packed, TransferClient, transferTypes, type Headers } from './transfer-client.ts';

type Any = ReturnType<typeof packed>;
type Store = containerd.types.transfer.ImageStore.$Properties;

const here: Headers = { namespace: 'test' };
const NAMED: Store = {
  extraReferences: [{ name: 'any.invalid/any', isPrefix: true, allowOverwrite: true }],
};
const UNPACKED: Store = { ...NAMED, unpacks: [{ snapshotter: 'overlayfs' }] };

/** A request of some sort; what it comes to is a code, or something to compare. */
type Case = readonly [
  what: string,
  ask: (client: TransferClient) => Promise<unknown>,
  /** What it comes to here where a containerd has no better word than Unknown. */
  code?: ErrorCode,
];

const image = (layout: Layout, ...texts: readonly string[]): TestDescriptor =>
  named(layout.image('amd64', ...texts), 'example.invalid/one:1');

const importing =
  (archive: Uint8Array, store: Store = NAMED, more = {}) =>
  async (client: TransferClient): Promise<unknown> => {
    const told = await client.import(here, archive, store, more);
    return told.map(({ event, name, desc }) => [
      event,
      name,
      desc?.digest,
      desc?.size,
      desc?.mediaType,
    ]);
  };

const archiveOf = (change: (layout: Layout) => readonly TestDescriptor[]): Buffer => {
  const layout = new Layout();
  return layout.archive(...change(layout));
};

const withManifest = (document: unknown, type = 'manifest'): Buffer =>
  archiveOf((layout) => [
    named(
      layout.add(json(document), `application/vnd.oci.image.${type}.v1+json`),
      'example.invalid/x:1',
    ),
  ]);

/** An image of a Windows base layer that may not be passed on, and one that may. */
function foreignLayers(): Buffer {
  return archiveOf((layout) => {
    const layers = ['a', 'b'].map((text) =>
      layout.add(gzipSync(tarOf([text, Buffer.from(text)])), LAYER),
    );
    const [foreign = layers[0], own] = layers;
    const config = layout.add(
      json({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [] } }),
      'application/vnd.oci.image.config.v1+json',
    );
    const mediaType = 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip';
    const manifest = { schemaVersion: 2, config, layers: [{ ...foreign, mediaType }, own] };
    return [
      named(
        layout.add(json(manifest), 'application/vnd.oci.image.manifest.v1+json'),
        'example.invalid/foreign:1',
      ),
    ];
  });
}

/** An image whose layer is not in the archive: without unpacking nobody misses it. */
function withoutLayer(): Buffer {
  return archiveOf((layout) => {
    const layer = gzipSync(tarOf(['hollow', Buffer.from('hollow\n')]));
    const manifest = layout.image('amd64', 'hollow');
    layout.drop({ digest: digestOf(layer) });
    return [named(manifest, 'example.invalid/hollow:1')];
  });
}

const store = (properties: Store) => packed('ImageStore', transferTypes.ImageStore, properties);

const IMPORTS: readonly Case[] = [
  ['several images', importing(severalImages())],
  ['several images, unpacked', importing(severalImages(), UNPACKED)],
  [
    'all metadata',
    importing(severalImages(), {
      ...NAMED,
      allMetadata: true,
      platforms: [{ os: 'linux', architecture: 'arm64' }],
    }),
  ],
  [
    'a limit of manifests',
    importing(severalImages(), {
      ...NAMED,
      manifestLimit: 1,
      platforms: [{ os: 'linux', architecture: 'amd64' }],
    }),
  ],
  ['gzip', importing(gzipSync(severalImages()))],
  ['zstd', importing(zstdCompressSync(severalImages()))],
  [
    'gzip that is not announced',
    importing(gzipSync(severalImages()), NAMED, { mediaType: 'application/x-tar' }),
    'InvalidArgument',
  ],
  ['no name', importing(severalImages(), {})],
  ['docker save', importing(dockerArchive(), UNPACKED)],
  [
    'one layer under two names',
    importing(
      tarOf(
        ['c.json', json({ architecture: 'amd64', os: 'linux' })],
        ['a/layer.tar', tarOf(['a', Buffer.from('a')])],
        ['b/layer.tar', tarOf(['a', Buffer.from('a')])],
        [
          './manifest.json',
          json([
            { Config: 'c.json', RepoTags: ['a.invalid/a'], Layers: ['a/layer.tar', 'b/layer.tar'] },
          ]),
        ],
      ),
    ),
  ],
  ['nothing', importing(new Uint8Array(0)), 'InvalidArgument'],
  ['an empty archive', importing(END), 'InvalidArgument'],
  ['no archive', importing(Buffer.alloc(4096, 'x')), 'InvalidArgument'],
  ['a broken gzip', importing(gzipSync(severalImages()).fill(7, 300, 320)), 'DataLoss'],
  ['half a gzip', importing(gzipSync(severalImages()).subarray(0, 700)), 'DataLoss'],
  ['half an archive', importing(severalImages().subarray(0, 5000)), 'DataLoss'],
  ['an archive cut off within a header', importing(severalImages().subarray(0, 4700)), 'DataLoss'],
  [
    'no index.json',
    importing(tarOf(['oci-layout', json({ imageLayoutVersion: '1.0.0' })])),
    'InvalidArgument',
  ],
  [
    'another version',
    importing(tarOf(['oci-layout', json({ imageLayoutVersion: '9' })])),
    'InvalidArgument',
  ],
  ['bad JSON', importing(tarOf(['oci-layout', Buffer.from('{')])), 'InvalidArgument'],
  [
    'an index that is none',
    importing(
      tarOf(
        ['oci-layout', json({ imageLayoutVersion: '1.0.0' })],
        ['index.json', Buffer.from('[')],
      ),
    ),
    'InvalidArgument',
  ],
  ['an index of nothing', importing(archiveOf(() => [])), 'NotFound'],
  [
    'no manifest',
    importing(
      archiveOf((layout) => {
        const one = image(layout, 'one');
        layout.drop(one);
        return [one];
      }),
    ),
  ],
  ['a manifest that is an index', importing(withManifest({ manifests: [] })), 'InvalidArgument'],
  [
    'an index that is a manifest',
    importing(withManifest({ layers: [] }, 'index')),
    'InvalidArgument',
  ],
  [
    'a layer with another diff ID',
    importing(
      archiveOf((layout) => {
        const layer = layout.add(gzipSync(tarOf(['a', Buffer.from('a')])), LAYER);
        const rootfs = { type: 'layers', diff_ids: [`sha256:${'0'.repeat(64)}`] };
        const config = layout.add(
          json({ architecture: 'amd64', os: 'linux', rootfs }),
          'application/vnd.oci.image.config.v1+json',
        );
        const manifest = layout.add(
          json({ config, layers: [layer] }),
          'application/vnd.oci.image.manifest.v1+json',
        );
        return [manifest];
      }),
      UNPACKED,
    ),
    'InvalidArgument',
  ],
  [
    'a layer too many',
    importing(
      archiveOf((layout) => {
        const layer = layout.add(gzipSync(tarOf(['a', Buffer.from('a')])), LAYER);
        const rootfs = { type: 'layers', diff_ids: [] };
        const config = layout.add(
          json({ architecture: 'amd64', os: 'linux', rootfs }),
          'application/vnd.oci.image.config.v1+json',
        );
        return [
          layout.add(
            json({ config, layers: [layer] }),
            'application/vnd.oci.image.manifest.v1+json',
          ),
        ];
      }),
      UNPACKED,
    ),
    'InvalidArgument',
  ],
  [
    'no such platform',
    importing(severalImages().subarray(0), {
      ...NAMED,
      platforms: [{ os: 'plan9', architecture: 'amd64' }],
      manifestLimit: 1,
    }),
  ],
  [
    'no such snapshotter',
    importing(severalImages(), { ...NAMED, unpacks: [{ snapshotter: 'missing' }] }),
  ],
  [
    'a docker archive without its layer',
    importing(
      tarOf(
        ['c.json', json({})],
        ['manifest.json', json([{ Config: 'c.json', Layers: ['none'] }])],
      ),
    ),
    'InvalidArgument',
  ],
  [
    'a docker archive without its config',
    importing(tarOf(['manifest.json', json([{ Config: 'c.json' }])])),
    'InvalidArgument',
  ],
  [
    'a docker archive with a bad name',
    importing(
      tarOf(
        ['c.json', json({})],
        ['manifest.json', json([{ Config: 'c.json', RepoTags: ['A B'] }])],
      ),
    ),
    'InvalidArgument',
  ],
  [
    'a link to nothing',
    importing(
      Buffer.concat([
        rawEntry({ name: 'a/layer.tar', type: '2', link: '../../../etc/passwd' }),
        rawEntry({ name: 'manifest.json' }, '[]'),
        END,
      ]),
    ),
    'InvalidArgument',
  ],
  [
    'names that climb',
    importing(
      Buffer.concat([
        rawEntry({ name: '../../../tmp/x' }, 'x'),
        rawEntry({ name: '/etc/x' }, 'x'),
        severalImages(),
      ]),
    ),
  ],
  [
    'a label that is too long',
    importing(severalImages(), { ...NAMED, labels: { long: 'x'.repeat(4096) } }),
  ],
];

const exporting =
  (names: readonly string[], more = {}) =>
  async (client: TransferClient): Promise<unknown> =>
    digestOf(await client.export(here, names, more));

const asking =
  (source: Any, destination: Any, headers: Headers = here, progress = '') =>
  (client: TransferClient): Promise<unknown> =>
    client.transfer(headers, source, destination, { progress });

const anything = (name: string, value = ''): Any => ({
  type_url: `containerd.types.transfer.${name}`,
  value: Buffer.from(value),
});

const REGISTRY = packed('OCIRegistry', transferTypes.OCIRegistry, {
  reference: 'example.invalid/image:1',
});

const EXPORTS: readonly Case[] = [
  ['(import)', importing(severalImages(), NAMED)],
  ['(import)', importing(foreignLayers(), { ...NAMED })],
  ['(import)', importing(withoutLayer(), NAMED)],
  ['one image', exporting(['any.invalid/any:second'])],
  ['the same twice', exporting(['any.invalid/any:second', 'any.invalid/any:second'])],
  ['an index', exporting(['example.invalid/both:1'])],
  ['all of an index', exporting(['example.invalid/both:1'], { allPlatforms: true })],
  [
    'two platforms',
    exporting(['example.invalid/both:1'], {
      platforms: [
        { os: 'linux', architecture: 'aarch64' },
        { os: 'linux', architecture: 'x86_64' },
      ],
    }),
  ],
  [
    'without a manifest.json',
    exporting(['any.invalid/any:second'], { skipCompatibilityManifest: true }),
  ],
  ['foreign layers', exporting(['example.invalid/foreign:1'])],
  ['no foreign layers', exporting(['example.invalid/foreign:1'], { skipNonDistributable: true })],
  ['no images at all', exporting([])],
  ['a layer that is missing', exporting(['example.invalid/hollow:1'])],
  ['an image that is missing', exporting(['any.invalid/missing:1'])],
  [
    'a platform that is missing',
    exporting(['example.invalid/both:1'], { platforms: [{ os: 'linux', architecture: 's390x' }] }),
  ],
];

const REQUESTS: readonly Case[] = [
  ['(import)', importing(severalImages(), NAMED)],
  ['a tag of nothing', asking(store({ name: 'missing' }), store({ name: 'a.invalid/b:1' }))],
  ['a tag to nowhere', asking(store({ name: 'any.invalid/any:second' }), store({}))],
  ['a tag', asking(store({ name: 'any.invalid/any:second' }), store({ name: 'a.invalid/b:1' }))],
  ['no streams', asking(anything('ImageImportStream'), store(NAMED))],
  [
    'a stream that is not there',
    asking(
      packed('ImageImportStream', transferTypes.ImageImportStream, { stream: 'none' }),
      store(NAMED),
    ),
  ],
  [
    'an export to a stream that is not there',
    asking(
      store({ name: 'any.invalid/any:second' }),
      packed('ImageExportStream', transferTypes.ImageExportStream, { stream: 'none' }),
    ),
  ],
  [
    'progress to a stream that is not there',
    asking(
      store({ name: 'any.invalid/any:second' }),
      store({ name: 'a.invalid/b:1' }),
      here,
      'none',
    ),
  ],
  ['between registries', asking(REGISTRY, REGISTRY)],
  [
    'from an export',
    async (client) => {
      await client.open(here, 'reversed');
      return asking(
        packed('ImageExportStream', transferTypes.ImageExportStream, { stream: 'reversed' }),
        store(NAMED),
      )(client);
    },
  ],
  ['a message that is no place', asking(anything('Data'), store(NAMED))],
  ['no namespace', asking(store({ name: 'a' }), store({ name: 'b' }), {})],
  [
    'a namespace with a bad name',
    asking(store({ name: 'a' }), store({ name: 'b' }), { namespace: 'a/b' }),
  ],
  [
    'a lease that is not there',
    (client) => client.import({ ...here, lease: 'none' }, severalImages(), NAMED),
  ],
  [
    'a message that is none',
    asking(anything('ImageStore', '\xff\xff'), store(NAMED)),
    'InvalidArgument',
  ],
  [
    'a type that nobody knows',
    asking({ type_url: 'some.Type', value: Buffer.alloc(0) }, store(NAMED)),
    'Unimplemented',
  ],
  ['nothing', asking({}, {}), 'Unimplemented'],
  [
    'a prefix to export by',
    async (client) => {
      await client.open(here, 'prefix');
      return asking(
        store(NAMED),
        packed('ImageExportStream', transferTypes.ImageExportStream, { stream: 'prefix' }),
      )(client);
    },
  ],
  [
    'bytes there and back',
    async (client) => {
      const [source, target] = [await client.open(here, 'there'), await client.open(here, 'back')];
      const sent = source.sendBytes(Buffer.alloc(1_000_000, 'bytes'));
      const received = target.receiveBytes();
      await asking(
        packed('ImageImportStream', transferTypes.ImageImportStream, { stream: 'there' }),
        packed('ImageExportStream', transferTypes.ImageExportStream, { stream: 'back' }),
      )(client);
      return [await sent, digestOf(await received)];
    },
  ],
  [
    'two streams of one name',
    async (client) => {
      await client.open(here, 'twice');
      await client.open(here, 'twice');
    },
    'AlreadyExists',
  ],
  [
    'one name in two namespaces',
    async (client) => {
      await client.open(here, 'apart');
      await client.open({ namespace: 'other' }, 'apart');
      await client.open({}, 'apart');
    },
  ],
  [
    'a stream that begins with something else',
    async (client) => {
      const stream = client.raw(here);
      await stream.send(anything('Data'));
      throw (await stream.ended) ?? new Error('it ended well');
    },
    'InvalidArgument',
  ],
  [
    'a stream that ends before it begins',
    async (client) => {
      const stream = client.raw(here);
      stream.end();
      throw (await stream.ended) ?? new Error('it ended well');
    },
    'InvalidArgument',
  ],
];

test('imports come to the same as with containerd', () => compare(IMPORTS));
test('exports are the same to the byte', () => compare(EXPORTS));
test('other requests are answered as by containerd', () => compare(REQUESTS));

async function compare(cases: readonly Case[]): Promise<void> {
  const [release] = RELEASES.slice(-1);
  if (release === undefined) throw new Error('no release');
  const alone = await Alone.start(release);
  const folder = join(alone.folder, 'containerd');
  await mkdir(folder);
  await plainContainerd(release, folder);
  using ours = new TransferClient(alone.socket);
  using theirs = new TransferClient(join(folder, 'containerd.sock'));
  for (const [what, ask, code] of cases) {
    const [one, other] = await Promise.all([outcome(ask(ours)), outcome(ask(theirs))]);
    if (code === undefined) {
      expect([what, one.value], `${one.message}\n${other.message}`).toEqual([what, other.value]);
      if (one.message.startsWith('method')) expect(one.message).toBe(other.message);
    } else {
      expect([what, other.value], other.message).toEqual([what, 'Unknown']);
      expect([what, one.value], one.message).toEqual([what, code]);
    }
  }
}

async function outcome(
  asked: Promise<unknown>,
): Promise<{ readonly value: unknown; readonly message: string }> {
  try {
    return { value: await asked, message: '' };
  } catch (error) {
    if (!isOpError(error)) throw error;
    return { value: error.code, message: error.message };
  }
}
