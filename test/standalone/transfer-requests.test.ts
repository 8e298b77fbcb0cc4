// Exports, and requests that ctr never makes, come to the same on ballast alone and on a containerd.
import { test } from 'vitest';
import { digestOf, severalImages } from './archives.ts';
import {
  compare,
  foreignLayers,
  here,
  importing,
  NAMED,
  store,
  withoutLayer,
  type Any,
  type Case,
} from './transfer-cases.ts';
import { packed, transferTypes, type Headers, type TransferClient } from './transfer-client.ts';

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

test('exports are the same to the byte', () => compare(EXPORTS));
test('other requests are answered as by containerd', () => compare(REQUESTS));
