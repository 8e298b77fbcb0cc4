// A plugin root without a containerd to ask: `du`, `whois` and `where` answer with keys and namespaces.
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import { Daemon } from '../support/daemon.ts';
import { quietUsage } from '../support/disk-use.ts';
import { bytesOf } from '../support/random.ts';
import { run } from '../support/run.ts';
import { repository, temporaryFolder } from '../support/temporary.ts';

test('a plugin root answers with keys and namespaces, as containerd put them into its names', async () => {
  await using folder = await temporaryFolder('du');
  // The root is written with a link.
  const [real, root] = [join(folder.path, 'real'), join(folder.path, 'root')];
  await mkdir(real);
  await symlink(real, root);
  await using daemon = await Daemon.start({ root, snapshotter: 'overlayfs' });
  const { content, snapshotter } = daemon.client;
  await snapshotter.prepare(background, 'k8s.io/1/extract', '', NO_LABELS);
  await snapshotter.commit(background, 'k8s.io/2/sha256:layer', 'k8s.io/1/extract', NO_LABELS, '');
  await snapshotter.prepare(background, 'k8s.io/3/box', 'k8s.io/2/sha256:layer', NO_LABELS);
  await using writer = await content.writer(background, 'k8s.io/7/some/ref', {});
  await writer.write(0, Uint8Array.from(bytesOf(1, 100_000)));

  const usage = await quietUsage(daemon.socket);
  expect(usage).toMatchObject({ total: usage.onDisk, owners: [] });
  expect(usage.namesUnknown).toMatch(/containerd_address/);
  const names = usage.snapshots.map(({ namespace, key }) => [namespace, key]);
  expect(names).toEqual([
    ['k8s.io', 'sha256:layer'],
    ['k8s.io', 'box'],
  ]);
  const ballast = (...args: readonly string[]): Promise<string> =>
    run(join(repository, 'bin/ballast'), [...args, '--address', daemon.socket]);
  expect(await ballast('du', '-v')).toMatch(/containerd_address/);
  const [place] = JSON.parse(await ballast('where', '--json', 'box'));
  const lower = join(root, 'snapshotters/ballast-overlay/snapshots/1/fs');
  expect(place).toMatchObject({ namespaces: ['k8s.io'], key: 'box', lowers: [lower] });
  for (const work of [place.work, place.work.replace(root, real)]) {
    const [owner] = JSON.parse(await ballast('whois', '--json', join(work, 'work')));
    expect(owner).toMatchObject({
      type: 'snapshots/ballast-overlay',
      namespaces: ['k8s.io'],
      key: 'box',
      parent: 'sha256:layer',
    });
  }
  const [ingest] = JSON.parse(await ballast('whois', '--json', 'k8s.io/7/some/ref'));
  expect(ingest).toMatchObject({ type: 'ingests', namespaces: ['k8s.io'], key: 'some/ref' });
});
