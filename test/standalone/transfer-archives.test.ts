// Archives of other programs, and large ones.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { NO_LABELS } from '../../src/base/labels.ts';
import { connect } from '../../src/grpc/proxy/connect.ts';
import { RELEASES } from '../interop/containerd.ts';
import { expectedTree, listTree, twelveLayers } from '../interop/images.ts';
import { performMounts } from '../support/mounts.ts';
import { END, rawEntry } from '../support/tar.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { digestOf, imageOf, json } from './archives.ts';
import { inside, startAlone } from './client.ts';
import { Alone } from './site.ts';
import { writeSmallImage } from './small-image.ts';
import { TransferClient, type Headers } from './transfer-client.ts';

const ctx = inside('test');
const here: Headers = { namespace: 'test' };
const NAMED = {
  extraReferences: [{ name: 'any.invalid/any', isPrefix: true, allowOverwrite: true }],
};
const UNPACKED = { ...NAMED, unpacks: [{ snapshotter: 'native' }] };

/** How much more than an idle daemon one may need for a transfer. */
const MEMORY_BYTES_MAX = 64 << 20;

const statusOf = async (pid: number, field: string): Promise<number> => {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)?.[1]) * 1024;
};

test('images of 256 MiB come and go, and layers are compressed, in little memory', async () => {
  await using root = await temporaryFolder('transfer');
  await using daemon = await startAlone(root.path);
  using client = new TransferClient(daemon.socket);
  const { pid } = daemon;
  const layer = Buffer.concat([rawEntry({ name: 'file' }, Buffer.alloc(256 << 20, 'text ')), END]);
  const config = json({
    architecture: 'amd64',
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: [digestOf(layer)] },
  });
  const manifest = json([
    { Config: 'c.json', RepoTags: ['example.invalid/huge:1'], Layers: ['layer.tar'] },
  ]);
  const archive = Buffer.concat([
    rawEntry({ name: 'layer.tar' }, layer),
    rawEntry({ name: 'c.json' }, config),
    rawEntry({ name: 'manifest.json' }, manifest),
    END,
  ]);
  const measured = async (what: string, work: () => Promise<unknown>): Promise<void> => {
    const idle = await statusOf(pid, 'VmRSS');
    await writeFile(`/proc/${pid}/clear_refs`, '5');
    await work();
    const peak = await statusOf(pid, 'VmHWM');
    expect(peak - idle, `${what}: bytes above ${idle}`).toBeLessThan(MEMORY_BYTES_MAX);
  };
  // Threads and code that only the first one needs.
  await client.import(here, imageOf(Buffer.alloc(1 << 20)), UNPACKED);
  await measured('plain', () => client.import(here, archive, NAMED));
  await measured('compressed', () => client.import(here, gzipSync(archive, { level: 1 }), NAMED));
  await measured('export', async () => {
    expect((await client.export(here, ['example.invalid/huge:1'])).length).toBeGreaterThan(
      256 << 20,
    );
  });
  await measured('unpacked', () => client.import(here, archive, UNPACKED));
  await measured('to be compressed', () =>
    client.import(here, archive, NAMED, { forceCompress: true }),
  );
});

test('what skopeo writes is imported, and what is exported it reads', async () => {
  const [release] = RELEASES.slice(-1);
  if (release === undefined) throw new Error('no release');
  const alone = await Alone.start(release);
  const { reference } = await writeSmallImage(join(alone.folder, 'small.tar'));
  const copy = 'skopeo --insecure-policy copy --quiet';
  const said = await alone.sh(`
    ${copy} oci-archive:small.tar docker-archive:docker.tar:skopeo.invalid/image:1
    ${copy} docker-archive:docker.tar oci-archive:oci.tar:latest
    ctr images import --snapshotter native docker.tar >/dev/null
    ctr images import --base-name oci.invalid/image oci.tar >/dev/null
    ctr images import --compress-blobs --no-unpack --base-name skopeo.invalid/image docker.tar >/dev/null
    ctr images tag skopeo.invalid/image:1 skopeo.invalid/image:2 >/dev/null
    ctr images ls -q
    ctr images export out.tar skopeo.invalid/image:1
    ${copy} docker-archive:out.tar dir:one
    ${copy} oci-archive:out.tar dir:two
    ctr images export - oci.invalid/image:latest | tar -t | grep -c blobs/sha256/.
    mkdir layout bundle
    ctr images export second.tar oci.invalid/image:latest
    tar -xf second.tar -C layout
    umoci unpack --image layout:latest bundle >/dev/null 2>&1
    cat bundle/rootfs/one bundle/rootfs/two
    ctr snapshots --snapshotter native ls | grep -c Committed
    ctr snapshots --snapshotter overlayfs ls | grep -c Committed`);
  expect(reference).toBe('example.org/small:1');
  expect(said.split('\n')).toEqual([
    'oci.invalid/image:latest',
    'skopeo.invalid/image:1',
    'skopeo.invalid/image:2',
    '4',
    'one',
    'two',
    '2',
    '2',
    '',
  ]);
});

// debootstrap may have to make the image first.
const FIRST_TIME = { timeout: 600_000 };

test(
  'a Debian of twelve layers, unpacked at once, is what umoci makes of it',
  FIRST_TIME,
  async () => {
    const [release] = RELEASES.slice(-1);
    if (release === undefined) throw new Error('no release');
    const image = await twelveLayers();
    const alone = await Alone.start(release);
    await alone.ctr('images', 'import', '--base-name', image.baseName, image.archive);
    expect(await alone.ctr('images', 'ls', '-q')).toBe(`${image.reference}\n`);
    await using ballast = connect(alone.socket);
    const snapshotter = ballast.snapshots('overlayfs');
    const all = await Array.fromAsync(snapshotter.walk(ctx, []));
    expect(all).toHaveLength(image.layers);
    const parents = new Set(all.map(({ parent }) => parent));
    const [top] = all.filter(({ name }) => !parents.has(name));
    const view = await snapshotter.view(ctx, 'view', top?.name ?? '', NO_LABELS);
    await using tree = await performMounts(view);
    expect(await listTree(tree.path, image.touched)).toEqual(await expectedTree(image));
  },
);
