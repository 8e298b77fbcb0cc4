import { once } from 'node:events';
import { watch } from 'node:fs';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { run } from '../support/run.ts';
import type { Image } from './images.ts';
import type { Site, SnapshotterName, Stored } from './site.ts';

/** Imports an image and unpacks it; `flags` go to `ctr images import`. */
export async function importImage(
  site: Site,
  image: Image,
  snapshotter: SnapshotterName,
  flags: readonly string[] = [],
): Promise<void> {
  const names = ['--base-name', image.baseName, '--snapshotter', snapshotter];
  await site.containerd.ctr('images', 'import', ...flags, ...names, image.archive);
}

/** Layers that were made for somebody would else be kept for some minutes more. */
export async function releaseMadeLayers(site: Site): Promise<void> {
  const leases = (await site.containerd.ctr('leases', 'ls', '--quiet')).split('\n');
  const ours = leases.filter((lease) => lease.startsWith('ballast-diff-'));
  if (ours.length > 0) await site.containerd.ctr('leases', 'rm', ...ours);
}

/** Removes what containerd knows of images, and lets it collect what only those needed. */
export async function removeImage(site: Site, image: Image): Promise<void> {
  await releaseMadeLayers(site);
  await site.containerd.ctr('images', 'rm', '--sync', image.reference);
  await site.containerd.ctr('content', 'prune', 'references');
}

export interface Listed {
  readonly key: string;
  readonly parent: string;
  readonly kind: string;
}

/** `ctr snapshots ls`, parsed. */
export async function listSnapshots(
  site: Site,
  snapshotter: SnapshotterName,
): Promise<readonly Listed[]> {
  const table = await snapshots(site, snapshotter, 'ls');
  return table
    .split('\n')
    .slice(1)
    .filter((line) => line !== '')
    .map((line) => {
      const columns = line.split(/\s+/).filter((text) => text !== '');
      const [key = '', second = '', third = ''] = columns;
      return third === ''
        ? { key, parent: '', kind: second }
        : { key, parent: second, kind: third };
    });
}

/** `ctr snapshots usage`: size and inodes by key. */
export async function usageOf(
  site: Site,
  snapshotter: SnapshotterName,
  key: string,
): Promise<{ readonly bytes: number; readonly inodes: number }> {
  const table = await snapshots(site, snapshotter, 'usage', '-b', key);
  const [, bytes = '', inodes = ''] = table.split('\n')[1]?.split(/\s+/) ?? [];
  return { bytes: Number(bytes), inodes: Number(inodes) };
}

export const snapshots = (
  site: Site,
  snapshotter: SnapshotterName,
  ...args: readonly string[]
): Promise<string> => site.containerd.ctr('snapshots', '--snapshotter', snapshotter, ...args);

/** Performs the mount commands that `ctr snapshots mounts` prints, in a namespace of their own. */
export async function insideSnapshot(
  site: Site,
  snapshotter: SnapshotterName,
  key: string,
  script: string,
): Promise<string> {
  const target = join(site.folder, 'inside');
  await mkdir(target, { recursive: true });
  const commands = await snapshots(site, snapshotter, 'mounts', target, key);
  const all = `set -e; ${commands.trim().replaceAll('\n', ';')}; cd ${target}; ${script}`;
  return run('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', all]);
}

/** The digests that a layout's folder holds. */
export async function layoutBlobs(layout: string): Promise<readonly string[]> {
  return (await readdir(join(layout, 'blobs/sha256'))).toSorted();
}

/** The digest of the manifest that a layout's index names. */
export async function manifestDigest(layout: string): Promise<string> {
  const index = await readFile(join(layout, 'index.json'), 'utf8');
  const [, digest = ''] = /"digest":\s*"(sha256:[0-9a-f]{64})"/.exec(index) ?? [];
  return digest;
}

/** LevelDB aside, a root that was used and emptied is as large as one that never was. */
export async function expectBaseLine(site: Site, before: Stored): Promise<void> {
  await untilEmpty(join(site.root, 'content/trash'));
  const after = await site.stored();
  expect({ blobs: after.blobs, ingests: after.ingests }).toEqual({ blobs: [], ingests: [] });
  expect(after.snapshots.length, `snapshots left: ${after.snapshots.join(' ')}`).toBe(
    before.snapshots.length,
  );
  expect(after.files).toEqual(before.files);
  expect(await run('btrfs', ['subvolume', 'list', site.btrfs.path])).toBe('');
  await site.expectNoMounts();
}

/** Removed blobs leave their name at once and the disk a little later. */
async function untilEmpty(folder: string): Promise<void> {
  const signal = AbortSignal.timeout(10_000);
  const watcher = watch(folder);
  try {
    for (;;) {
      // Listened for before the look, so that no change falls between the two.
      const changed = once(watcher, 'change', { signal });
      changed.catch(() => {});
      if ((await readdir(folder)).length === 0) return;
      await changed;
    }
  } finally {
    watcher.close();
  }
}
