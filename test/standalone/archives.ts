// Archives of images as tests need them: of several images and platforms, of Docker's kind, and broken ones.
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { END, rawEntry } from '../support/tar.ts';

export interface TestDescriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: { readonly os: string; readonly architecture: string };
}

const OCI = 'application/vnd.oci.image';
export const LAYER = `${OCI}.layer.v1.tar+gzip`;

export const digestOf = (bytes: Uint8Array): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

export const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

export const tarOf = (...files: readonly (readonly [string, Uint8Array])[]): Buffer =>
  Buffer.concat([...files.map(([name, bytes]) => rawEntry({ name }, Buffer.from(bytes))), END]);

/** Blobs by and by, and archives that have them. */
export class Layout {
  readonly #blobs = new Map<string, Uint8Array>();

  add(bytes: Uint8Array, mediaType: string): TestDescriptor {
    const digest = digestOf(bytes);
    this.#blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  }

  /** An image with a layer for each text. */
  image(architecture: string, ...texts: readonly string[]): TestDescriptor {
    const plain = texts.map((text) => tarOf([text, Buffer.from(`${text}\n`)]));
    const layers = plain.map((layer, at) => ({
      ...this.add(gzipSync(layer), LAYER),
      annotations: { 'containerd.io/snapshot/of': texts[at] ?? '', 'example.invalid/of': 'none' },
    }));
    const rootfs = { type: 'layers', diff_ids: plain.map(digestOf) };
    const config = this.add(json({ architecture, os: 'linux', rootfs }), `${OCI}.config.v1+json`);
    const mediaType = `${OCI}.manifest.v1+json`;
    const manifest = this.add(json({ schemaVersion: 2, mediaType, config, layers }), mediaType);
    return { ...manifest, platform: { os: 'linux', architecture } };
  }

  index(...manifests: readonly TestDescriptor[]): TestDescriptor {
    const mediaType = `${OCI}.index.v1+json`;
    return this.add(json({ schemaVersion: 2, mediaType, manifests }), mediaType);
  }

  drop({ digest }: Pick<TestDescriptor, 'digest'>): void {
    this.#blobs.delete(digest);
  }

  /** The archive whose index.json has these. */
  archive(...manifests: readonly TestDescriptor[]): Buffer {
    const blobs = [...this.#blobs].map(
      ([digest, bytes]) => [`blobs/${digest.replace(':', '/')}`, bytes] as const,
    );
    return tarOf(
      ['oci-layout', json({ imageLayoutVersion: '1.0.0' })],
      ['index.json', json({ schemaVersion: 2, manifests })],
      ...blobs,
    );
  }
}

export const named = (descriptor: TestDescriptor, name: string): TestDescriptor => ({
  ...descriptor,
  annotations: { 'io.containerd.image.name': name },
});

export const tagged = (descriptor: TestDescriptor, tag: string): TestDescriptor => ({
  ...descriptor,
  annotations: { 'org.opencontainers.image.ref.name': tag },
});

/** Two platforms under a name, one image with a tag, and one with no name at all. */
export function severalImages(): Buffer {
  const layout = new Layout();
  const both = layout.index(layout.image('amd64', 'one', 'two'), layout.image('arm64', 'three'));
  return layout.archive(
    named(both, 'example.invalid/both:1'),
    tagged(layout.image('amd64', 'four'), 'second'),
    layout.image('amd64', 'five'),
  );
}

/** The archive of an image with one layer that has these bytes in a file. */
export const imageOf = (bytes: Buffer, name = 'example.invalid/large:1'): Buffer =>
  imageOfLayers(name, [{ plain: Buffer.concat([rawEntry({ name: 'file' }, bytes), END]) }]);

export interface TestLayer {
  readonly plain: Buffer;
  /** In the place of a gzip of it. */
  readonly blob?: Buffer;
}

export function imageOfLayers(name: string, given: readonly TestLayer[]): Buffer {
  const layout = new Layout();
  const layers = given.map(({ plain, blob }) =>
    layout.add(blob ?? gzipSync(plain, { level: 1 }), LAYER),
  );
  const config = layout.add(
    json({
      architecture: 'amd64',
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: given.map(({ plain }) => digestOf(plain)) },
    }),
    'application/vnd.oci.image.config.v1+json',
  );
  const manifest = layout.add(
    json({ schemaVersion: 2, config, layers }),
    'application/vnd.oci.image.manifest.v1+json',
  );
  return layout.archive(named(manifest, name));
}

/** What `docker save` writes: two names, plain layers, and one of them a link to another's. */
export function dockerArchive(): Buffer {
  const layers = ['one', 'two'].map((text) => tarOf([text, Buffer.from(`${text}\n`)]));
  const [first = Buffer.alloc(0), second = Buffer.alloc(0)] = layers;
  const configOf = (...of: readonly Buffer[]): Buffer =>
    json({
      architecture: 'amd64',
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: of.map(digestOf) },
    });
  const manifest = [
    {
      Config: 'a.json',
      RepoTags: ['one.invalid/a:1', 'short'],
      Layers: ['1/layer.tar', '2/layer.tar'],
    },
    { Config: 'b.json', RepoTags: null, Layers: ['3/layer.tar'] },
  ];
  return Buffer.concat([
    rawEntry({ name: '1/', type: '5' }),
    rawEntry({ name: '1/layer.tar' }, first),
    rawEntry({ name: '2/layer.tar' }, second),
    rawEntry({ name: '3/layer.tar', type: '2', link: '../1/layer.tar' }),
    rawEntry({ name: 'a.json' }, configOf(first, second)),
    rawEntry({ name: 'b.json' }, configOf(first)),
    rawEntry({ name: 'manifest.json' }, json(manifest)),
    END,
  ]);
}
