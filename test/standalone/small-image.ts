import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { rawEntry } from '../support/tar.ts';

/** An image of two layers, small enough to compare every command's output on it. */
export interface SmallImage {
  readonly reference: string;
  readonly layers: readonly string[];
  /** Its chain ids: the names of its snapshots. */
  readonly chain: readonly [string, string];
  readonly manifest: string;
  readonly config: string;
  /** The archive's own index: nothing refers to it once it is imported. */
  readonly index: string;
}

const digestOf = (bytes: Uint8Array): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

const tarOf = (files: Iterable<readonly [string, Uint8Array]>): Buffer =>
  Buffer.concat([
    ...Array.from(files, ([name, bytes]) => rawEntry({ name }, Buffer.from(bytes))),
    Buffer.alloc(1024),
  ]);

/** Writes the image's archive, as `ctr images import` takes it. */
export async function writeSmallImage(path: string): Promise<SmallImage> {
  const blobs = new Map<string, Uint8Array>();
  const add = (bytes: Uint8Array, mediaType: string, annotations?: object) => {
    const digest = digestOf(bytes);
    blobs.set(`blobs/sha256/${digest.slice('sha256:'.length)}`, bytes);
    return { mediaType, digest, size: bytes.length, ...(annotations ? { annotations } : {}) };
  };
  const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
  const plain = ['one', 'two'].map((name) => tarOf([[name, Buffer.from(`${name}\n`)]]));
  const layers = plain.map((layer) =>
    add(gzipSync(layer), 'application/vnd.oci.image.layer.v1.tar+gzip'),
  );
  const diffIds = plain.map(digestOf);
  const [first = '', second = ''] = diffIds;
  const config = add(
    json({
      architecture: 'amd64',
      os: 'linux',
      config: { Cmd: ['/one'] },
      rootfs: { type: 'layers', diff_ids: diffIds },
    }),
    'application/vnd.oci.image.config.v1+json',
  );
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const reference = 'example.org/small:1';
  const manifest = add(json({ schemaVersion: 2, mediaType, config, layers }), mediaType, {
    'io.containerd.image.name': reference,
    'org.opencontainers.image.ref.name': '1',
  });
  const index = json({ schemaVersion: 2, manifests: [manifest] });
  const files = new Map<string, Uint8Array>([
    ['oci-layout', json({ imageLayoutVersion: '1.0.0' })],
    ['index.json', index],
    ...blobs,
  ]);
  await writeFile(path, tarOf(files));
  return {
    reference,
    layers: layers.map(({ digest }) => digest),
    chain: [first, digestOf(Buffer.from(`${first} ${second}`))],
    manifest: manifest.digest,
    config: config.digest,
    index: digestOf(index),
  };
}
