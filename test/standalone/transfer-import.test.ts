// Good, broken and hostile archives come to the same on ballast alone and on a containerd.
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { test } from 'vitest';
import { END, rawEntry } from '../support/tar.ts';
import { dockerArchive, json, LAYER, severalImages, tarOf } from './archives.ts';
import {
  archiveOf,
  compare,
  image,
  importing,
  NAMED,
  UNPACKED,
  withManifest,
  type Case,
} from './transfer-cases.ts';

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

test('imports come to the same as with containerd', () => compare(IMPORTS));
