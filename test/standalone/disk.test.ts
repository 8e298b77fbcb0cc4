// `ballast du`, `whois` and `where` on a root with an image that a stock `ctr` imported.
import { readdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import type { DiskUsage, Identity, Place } from '../../src/disk/disk.ts';
import { Calls } from '../../src/grpc/proxy/calls.ts';
import { connect } from '../../src/grpc/proxy/connect.ts';
import { DiskProxy } from '../../src/grpc/proxy/disk.ts';
import { GcProxy } from '../../src/grpc/proxy/gc.ts';
import { RELEASES } from '../interop/containerd.ts';
import { allocatedIn, emptied, expectTruth } from '../support/disk-use.ts';
import { bytesOf } from '../support/random.ts';
import { run } from '../support/run.ts';
import { repository } from '../support/temporary.ts';
import { COLLECT, inside, RPC } from './client.ts';
import { Alone } from './site.ts';
import { writeSmallImage, type SmallImage } from './small-image.ts';

const here = inside('test');
const leased = inside('test', 'lease');

interface Populated {
  readonly alone: Alone;
  readonly root: string;
  readonly image: SmallImage;
}

/**
 * An image; a container above its lower layer; a lease with a blob; half an ingest; and in another namespace a
 * blob of the image.
 */
async function populated(): Promise<Populated> {
  const release = RELEASES.find(({ name }) => name === '2.x');
  if (release === undefined) throw new Error('no containerd 2.x');
  const alone = await Alone.start(release, { gc: COLLECT });
  const archive = join(alone.folder, 'image.tar');
  const image = await writeSmallImage(archive);
  await alone.ctr('images', 'import', ...release.local, archive);
  using calls = new Calls(alone.socket);
  await using connection = connect(alone.socket);
  const { content } = connection;
  await calls.unary(here, RPC.createContainer, {
    container: {
      id: 'box',
      runtime: { name: 'none' },
      spec: { type_url: 'none', value: new Uint8Array() },
      snapshotter: 'overlayfs',
      snapshotKey: 'box-key',
    },
  });
  await connection.snapshots('overlayfs').prepare(here, 'box-key', image.chain[0], NO_LABELS);
  await calls.unary(here, RPC.createLease, { id: 'lease' });
  {
    await using writer = await content.writer(leased, 'whole', {});
    await writer.write(0, Uint8Array.from(bytesOf(1, 150_000)));
    await writer.commit(NO_LABELS);
  }
  {
    await using writer = await content.writer(here, 'half', {});
    await writer.write(0, Uint8Array.from(bytesOf(2, 70_000)));
  }
  await new GcProxy(calls).run(here);
  await emptied(join(alone.folder, 'root/content/trash'));
  return { alone, root: join(alone.folder, 'root'), image };
}

/** Runs the command line on the socket. */
const ballast = (alone: Alone, ...args: readonly string[]): Promise<string> =>
  run('env', [`BALLAST_ADDRESS=${alone.socket}`, join(repository, 'bin/ballast'), ...args]);

const ownerOf = ({ owners }: DiskUsage, type: string) => {
  const owner = owners.find((each) => each.type === type);
  if (owner === undefined) throw new Error(`no ${type}`);
  return owner;
};

test('what an image has to itself is what its removal frees on the disk', async () => {
  const { alone, root, image } = await populated();
  const before = await expectTruth(alone.socket);
  const { key, namespace, unique, shared } = ownerOf(before, 'images');
  expect({ key, namespace }).toEqual({ key: image.reference, namespace: 'test' });
  const lower = before.snapshots.find((snapshot) => snapshot.key === image.chain[0]);
  expect(lower?.keepers).toBe(2);
  expect(shared).toBe(lower?.bytes);
  const container = ownerOf(before, 'containers');
  const own = before.snapshots.find((snapshot) => snapshot.key === 'box-key');
  expect(container).toMatchObject({ key: 'box', unique: own?.bytes, shared: lower?.bytes });
  expect(ownerOf(before, 'leases')).toMatchObject({ key: 'lease', unique: 151_552, shared: 0 });

  const stored = ['content/blobs', 'snapshotters'].map((folder) => join(root, folder));
  const full = await allocatedIn(stored);
  await alone.ctr('images', 'rm', '--sync', image.reference);
  await using connection = connect(alone.socket);
  await connection.snapshots('overlayfs').cleanup(here);
  await emptied(join(root, 'content/trash'));
  expect(full - (await allocatedIn(stored))).toBe(unique);
  const after = await expectTruth(alone.socket);
  expect(ownerOf(after, 'containers')).toMatchObject({
    unique: container.unique + container.shared,
    shared: 0,
  });
});

test('each path below the root belongs to what `where` finds there, and to nothing else', async () => {
  const { alone, root, image } = await populated();
  using calls = new Calls(alone.socket);
  const disk = new DiskProxy(calls);
  const who = (path: string): Promise<readonly Identity[]> =>
    disk.whoIs(background, { paths: [path] });
  const places = new Map<string, Place>();
  const owned = new Map<string, number>();
  for (const name of await readdir(root, { recursive: true })) {
    const path = join(root, name);
    const [identity, ...more] = await who(path);
    expect(more).toEqual([]);
    if (identity === undefined) throw new Error(`${path} belongs to nothing`);
    owned.set(identity.type, (owned.get(identity.type) ?? 0) + 1);
    const isStored = /\/(?:blobs\/sha256|ingests|snapshots)\/[^/]+/.test(path);
    expect(['content', 'ingests', 'snapshots/overlayfs'].includes(identity.type), path).toBe(
      isStored,
    );
    if (!isStored) continue;
    const at = (await disk.where(background, identity.key)).filter(
      (place) => path === place.path || path.startsWith(`${place.path}/`),
    );
    expect(at, path).toHaveLength(1);
    expect(at[0]).toMatchObject({ type: identity.type, key: identity.key, namespaces: ['test'] });
    for (const place of at) places.set(place.path, place);
  }
  expect([...owned.keys()].toSorted()).toEqual([
    'content',
    'folders',
    'ingests',
    'metadata',
    'snapshots/overlayfs',
  ]);

  // The other way round, and what the names of images, containers and leases lead to.
  const kinds = async (name: string): Promise<readonly string[]> => {
    const found = await disk.where(background, name);
    for (const { path } of found) expect(places.has(path)).toBe(true);
    return found.map(({ key }) => key).toSorted();
  };
  const { manifest, config, layers, chain } = image;
  expect(await kinds(image.reference)).toEqual([manifest, config, ...layers, ...chain].toSorted());
  expect(await kinds('box')).toEqual(['box-key', chain[0]].toSorted());
  expect(await kinds('lease')).toHaveLength(1);
});

test('whois names image, layer, container and namespace; by path, digest, key, number and diff ID', async () => {
  const { alone, root, image } = await populated();
  const whois = async (what: string): Promise<readonly Identity[]> =>
    JSON.parse(await ballast(alone, 'whois', '--json', what));
  const { tree = '', path = '' } = JSON.parse(
    await ballast(alone, 'where', '--json', image.chain[1]),
  )[0];
  const keptByImage = { type: 'images', namespace: 'test', key: image.reference };
  const upper = {
    type: 'snapshots/overlayfs',
    namespaces: ['test'],
    key: image.chain[1],
    kind: 'committed',
    parent: image.chain[0],
    layer: image.layers[1],
    keptBy: [keptByImage],
  };
  expect(await whois(join(tree, 'two'))).toMatchObject([upper]);
  expect(await whois(path.slice(path.lastIndexOf('/') + 1))).toMatchObject([upper]);
  const diffId = (await whois(image.chain[1]))[0]?.diffId ?? '';
  expect(await whois(diffId)).toMatchObject([
    { type: 'content', key: image.layers[1], diffId, keptBy: [keptByImage] },
  ]);
  expect(await whois('box-key')).toMatchObject([
    { kind: 'active', keptBy: [{ type: 'containers', namespace: 'test', key: 'box' }] },
  ]);
  expect(await whois('half')).toMatchObject([{ type: 'ingests', namespaces: ['test'] }]);
  await expect(ballast(alone, 'whois', '/etc/passwd')).rejects.toThrow(
    /"\/etc\/passwd".*not found/,
  );
  await expect(ballast(alone, 'where', 'no.such/image')).rejects.toThrow(/no\.such.*not found/);

  // A link to the root, a relative path, and a link within a snapshot that leads out of it.
  await symlink(root, join(alone.folder, 'link'));
  await symlink('/etc', join(tree, 'out'));
  const linked = tree.replace(root, join(alone.folder, 'link'));
  for (const written of [`${linked}/two`, `${linked}/out`, `${tree}/out`]) {
    expect(await whois(written), written).toMatchObject([upper]);
  }
  const relative = await run('sh', [
    '-ec',
    'cd "$1"; exec "$2" whois --address "$3" ./fs/two',
    'sh',
    path,
    join(repository, 'bin/ballast'),
    alone.socket,
  ]);
  expect(relative).toContain(image.chain[1]);
});

test('du prints what it counts: by kind, and with -v each owner and snapshot', async () => {
  const { alone, image } = await populated();
  const usage = await expectTruth(alone.socket);
  const plain = await ballast(alone, 'du', '--bytes');
  const lines = plain
    .trimEnd()
    .split('\n')
    .map((line) => line.split(/ {2,}/));
  expect(lines[0]).toEqual(['TYPE', 'COUNT', 'SIZE', 'UNIQUE', 'SHARED', 'UNREFERENCED']);
  for (const { type, count, bytes } of usage.parts) {
    const line = lines.find(([first]) => first === type);
    if (['content', 'ingests', 'snapshots/overlayfs'].includes(type)) {
      expect(line?.slice(1, 3)).toEqual([String(count), String(bytes)]);
    }
  }
  expect(lines.at(-1)).toEqual(['total', String(usage.total)]);
  const verbose = await ballast(alone, 'du', '-v');
  for (const name of [image.reference, 'box', 'lease', ...image.chain, 'box-key']) {
    expect(verbose).toMatch(new RegExp(`\\b${name}\\s.*(?: B| KiB)$`, 'm'));
  }
});
