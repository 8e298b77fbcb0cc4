// Requests to Transfer and Streaming, asked of ballast alone and of a containerd 2.x. What they come to is equal,
// codes of errors included, but for those that a containerd calls Unknown: here they have a better word.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect } from 'vitest';
import { isOpError, type ErrorCode } from '../../src/base/errors.ts';
import type { containerd } from '../../src/grpc/gen/wire.js';
import { RELEASES } from '../interop/containerd.ts';
import { digestOf, json, LAYER, Layout, named, tarOf, type TestDescriptor } from './archives.ts';
import { Alone, plainContainerd } from './site.ts';
import { packed, TransferClient, transferTypes, type Headers } from './transfer-client.ts';

export type Any = ReturnType<typeof packed>;
export type Store = containerd.types.transfer.ImageStore.$Properties;

export const here: Headers = { namespace: 'test' };
export const NAMED: Store = {
  extraReferences: [{ name: 'any.invalid/any', isPrefix: true, allowOverwrite: true }],
};
export const UNPACKED: Store = { ...NAMED, unpacks: [{ snapshotter: 'overlayfs' }] };

/** A request of some sort; what it comes to is a code, or something to compare. */
export type Case = readonly [
  what: string,
  ask: (client: TransferClient) => Promise<unknown>,
  /** What it comes to here where a containerd has no better word than Unknown. */
  code?: ErrorCode,
];

export const image = (layout: Layout, ...texts: readonly string[]): TestDescriptor =>
  named(layout.image('amd64', ...texts), 'example.invalid/one:1');

export const importing =
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

export const archiveOf = (change: (layout: Layout) => readonly TestDescriptor[]): Buffer => {
  const layout = new Layout();
  return layout.archive(...change(layout));
};

export const withManifest = (document: unknown, type = 'manifest'): Buffer =>
  archiveOf((layout) => [
    named(
      layout.add(json(document), `application/vnd.oci.image.${type}.v1+json`),
      'example.invalid/x:1',
    ),
  ]);

/** An image of a Windows base layer that may not be passed on, and one that may. */
export function foreignLayers(): Buffer {
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
export function withoutLayer(): Buffer {
  return archiveOf((layout) => {
    const layer = gzipSync(tarOf(['hollow', Buffer.from('hollow\n')]));
    const manifest = layout.image('amd64', 'hollow');
    layout.drop({ digest: digestOf(layer) });
    return [named(manifest, 'example.invalid/hollow:1')];
  });
}

export const store = (properties: Store) =>
  packed('ImageStore', transferTypes.ImageStore, properties);

export async function compare(cases: readonly Case[]): Promise<void> {
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
