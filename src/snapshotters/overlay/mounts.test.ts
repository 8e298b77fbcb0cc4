import { expect, test } from 'vitest';
import type { Kind } from '../snapshotter.ts';
import { idMapping } from './id-mapping.ts';
import { overlayMounts } from './mounts.ts';

const S = '/root/snapshots';
const mounts = (
  kind: Kind,
  parentIds: readonly string[],
  mapping?: Parameters<typeof overlayMounts>[2]['mapping'],
  isStaged = false,
) =>
  overlayMounts(
    S,
    { id: '9', kind, parentIds, labels: new Map() },
    { overlay: ['volatile', 'index=off'], mapping, isStaged },
  );

test('an active snapshot without a parent is a writable bind mount', () => {
  expect(mounts('active', [])).toEqual([
    { type: 'bind', source: `${S}/9/fs`, options: ['rw', 'rbind'] },
  ]);
});

test('a view without a parent is an empty read-only bind mount', () => {
  expect(mounts('view', [])).toEqual([
    { type: 'bind', source: `${S}/9/fs`, options: ['ro', 'rbind'] },
  ]);
});

test('an active snapshot with parents is an overlay, nearest parent first, with the extra options last', () => {
  expect(mounts('active', ['3', '2', '1'])).toEqual([
    {
      type: 'overlay',
      source: 'overlay',
      options: [
        `workdir=${S}/9/work`,
        `upperdir=${S}/9/fs`,
        `lowerdir=${S}/3/fs:${S}/2/fs:${S}/1/fs`,
        'volatile',
        'index=off',
      ],
    },
  ]);
});

test('a view of one parent is a bind mount of that parent, without overlay options', () => {
  expect(mounts('view', ['3'])).toEqual([
    { type: 'bind', source: `${S}/3/fs`, options: ['ro', 'rbind'] },
  ]);
});

test('a view of several parents is an overlay without upper and work directory', () => {
  expect(mounts('view', ['3', '2'])[0]?.options).toEqual([
    `lowerdir=${S}/3/fs:${S}/2/fs`,
    'volatile',
    'index=off',
  ]);
});

test('a snapshot whose parent comes at Commit is an overlay without lower directories', () => {
  expect(mounts('active', [], undefined, true)).toEqual([
    {
      type: 'overlay',
      source: 'overlay',
      options: [`workdir=${S}/9/work`, `upperdir=${S}/9/fs`, 'volatile', 'index=off'],
    },
  ]);
});

test('an id mapping comes first, on bind mounts too', () => {
  const labels = new Map([['containerd.io/snapshot/uidmapping', '0:1000:2000']]);
  const mapping = idMapping(labels);
  expect(mounts('active', [], mapping)[0]?.options).toEqual([
    'uidmap=0:1000:2000',
    'gidmap=0:0:4294967295',
    'rw',
    'rbind',
  ]);
  expect(mounts('active', ['3'], mapping)[0]?.options.slice(0, 2)).toEqual([
    'uidmap=0:1000:2000',
    'gidmap=0:0:4294967295',
  ]);
});
