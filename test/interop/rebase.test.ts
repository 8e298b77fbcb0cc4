// Layers applied at the same time by containerd's own differ, into snapshots whose parents come at Commit.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { digestOf } from '../../src/base/digest.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import { PLAIN_LAYER } from '../../src/diff/diff.ts';
import { unpack, type ImageLayer } from '../../src/diff/unpack.ts';
import { connect } from '../../src/grpc/proxy/connect.ts';
import { printDropIn, startContainerd } from '../operator/site.ts';
import { run } from '../support/run.ts';
import { performMounts } from '../support/mounts.ts';
import { END, rawEntry } from '../support/tar.ts';
import { RELEASES } from './containerd.ts';
import { Site } from './site.ts';

const LAYERS: readonly Buffer[] = [
  [rawEntry({ name: 'gone' }), rawEntry({ name: 'hidden/old' }), rawEntry({ name: 'kept' }, '1')],
  [rawEntry({ name: '.wh.gone' }), rawEntry({ name: 'hidden/.wh..wh..opq' })],
  [rawEntry({ name: 'hidden/new' }), rawEntry({ name: 'kept' }, '3')],
].map((entries) => Buffer.concat([...entries, END]));

const known = RELEASES.filter(({ name }) => name !== '1.6');
test.for(known)('whiteouts of containerd $name’s own differ survive a rebase', async (release) => {
  const site = await Site.create();
  await startContainerd(site, release, await printDropIn(site, release));
  await using ballast = connect(site.socket);
  await using containerd = connect(join(site.folder, 'containerd.sock'));
  const ctx = { ...background, namespace: site.namespace };
  const layers: ImageLayer[] = [];
  for (const plain of LAYERS) {
    const digest = digestOf('sha256', createHash('sha256').update(plain).digest('hex'));
    await using writer = await containerd.content.writer(ctx, digest, {});
    await writer.write(0, Buffer.from(plain));
    await writer.commit(new Map([['containerd.io/gc.root', 'now']]));
    const descriptor = { mediaType: PLAIN_LAYER, digest, size: plain.length };
    layers.push({ descriptor, diffId: digest });
  }
  const snapshotter = ballast.snapshots('ballast-overlay');
  const { applier } = containerd;
  const top = await unpack(ctx, { snapshotter, applier, layers, canRebase: true });
  await using tree = await performMounts(
    await snapshotter.view(background, 'view', top, NO_LABELS),
  );
  const find = await run('sh', ['-c', 'cd "$0" && find . | sort && cat kept', tree.path]);
  expect(find).toBe('.\n./hidden\n./hidden/new\n./kept\n3');
});
