import { expect, test } from 'vitest';
import type { Node } from './collectible.ts';
import { named } from './named.ts';

const digest = (beginning: string): string => `sha256:${beginning.padEnd(64, '0')}`;
const node = (type: string, key: string, namespace = 'one'): Node => ({ type, namespace, key });
const nodes = [
  node('content', digest('abcd12')),
  node('content', digest('abcd34')),
  node('content', digest('abcd56'), 'two'),
  node('snapshots/native', digest('abcd34')),
  node('images', 'abcd'),
  node('leases', 'same'),
  node('ingests', 'same'),
  node('leases', 'sha256:ef'),
];
const graph = { nodes: () => nodes, find: () => undefined };
const find = async (name: string, namespace = 'one'): Promise<readonly Node[]> =>
  named(graph, namespace, name, {});

test('a name is that of all that have it, in the namespace', async () => {
  expect(await find('same')).toEqual([nodes[5], nodes[6]]);
  expect(await find('sha256:ef')).toEqual([nodes[7]]);
  await expect(find('same', 'two')).rejects.toMatchObject({ code: 'NotFound' });
});

test('four digits of a digest are enough where no other begins so, and a name that is the same goes first', async () => {
  expect(await find('abcd1')).toEqual([nodes[0]]);
  expect(await find('sha256:abcd34')).toEqual([nodes[1], nodes[3]]);
  expect(await find('abcd', 'two')).toEqual([nodes[2]]);
  expect(await find('abcd')).toEqual([nodes[4]]);
  await expect(find('sha256:abcd')).rejects.toMatchObject({ code: 'InvalidArgument' });
  await expect(find('abc', 'two')).rejects.toMatchObject({ code: 'NotFound' });
  await expect(find('sha512:abcd1')).rejects.toMatchObject({ code: 'NotFound' });
});
