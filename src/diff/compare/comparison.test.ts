import { expect, test } from 'vitest';
import type { Mount } from '../../snapshotters/snapshotter.ts';
import { comparisonOf } from './comparison.ts';

const overlay = (...options: readonly string[]): readonly Mount[] => [
  { type: 'overlay', source: 'overlay', options },
];
const bind = (source: string): readonly Mount[] => [
  { type: 'bind', source, options: ['ro', 'rbind'] },
];
const directory = (path: string): object => ({ kind: 'directory', path });

test('one layer of overlayfs above the older tree is looked at alone, active or committed', () => {
  const active = overlay('workdir=/w', 'upperdir=/3', String.raw`lowerdir=/2\:x:/1`, 'index=off');
  const view = overlay(String.raw`lowerdir=/2\:x:/1`, 'index=off');
  const lower = { kind: 'layers', paths: ['/2:x', '/1'], options: [] };
  expect(comparisonOf(view, active)).toEqual({
    upper: directory('/3'),
    lower,
    marks: 'trusted.overlay.',
  });
  expect(comparisonOf(bind('/1'), overlay('lowerdir=/2:/1', 'userxattr'))).toEqual({
    upper: directory('/2'),
    lower: directory('/1'),
    marks: 'user.overlay.',
  });
  expect(comparisonOf([], overlay('upperdir=/1', 'workdir=/w'))).toEqual({
    upper: directory('/1'),
    lower: undefined,
    marks: 'trusted.overlay.',
  });
});

test('other trees are looked at as a whole', () => {
  const options = ['redirect_dir=off'];
  expect(comparisonOf(bind('/1'), overlay('upperdir=/3', 'lowerdir=/2:/1', ...options))).toEqual({
    upper: { kind: 'layers', paths: ['/3', '/2', '/1'], options },
    lower: directory('/1'),
    marks: undefined,
  });
  expect(comparisonOf(bind('/a'), bind('/b'))).toEqual({
    upper: directory('/b'),
    lower: directory('/a'),
    marks: undefined,
  });
  const btrfs = [{ type: 'btrfs', source: '/dev/x', options: ['subvolid=7', 'ro'] }];
  expect(comparisonOf([], btrfs).upper).toEqual({
    kind: 'mount',
    type: 'btrfs',
    options: ['source=/dev/x', 'subvolid=7'],
  });
});

test('what is no single tree is refused', () => {
  expect(() => comparisonOf(bind('/a'), [])).toThrow('nothing to compare');
  expect(() => comparisonOf([], [...bind('/a'), ...bind('/b')])).toThrow('2 mounts');
  const formatted = [{ type: 'format/overlay', source: 'overlay', options: [] }];
  expect(() => comparisonOf(formatted, bind('/a'))).toThrow('format/overlay');
  const mapped = overlay('uidmap=0:1000:1', 'upperdir=/2', 'lowerdir=/1');
  expect(() => comparisonOf([], mapped)).toThrow('uidmap=0:1000:1');
});
