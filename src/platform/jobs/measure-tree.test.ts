import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, linkSync, lstatSync, mkdirSync, symlinkSync } from 'node:fs';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { loopFileSystem } from '../../../test/support/loop-fs.ts';
import { temporaryFolder } from '../../../test/support/temporary.ts';
import { never } from './cancellation.ts';
import { measureTree } from './measure-tree.ts';

const allocated = (path: string): number => lstatSync(path).blocks * 512;

test('an empty directory is one inode and its own blocks', async () => {
  await using folder = await temporaryFolder('measure');
  chmodSync(folder.path, 0o755);
  chownSync(folder.path, 12, 34);
  const size = allocated(folder.path);
  expect(measureTree(folder.path, never)).toEqual({ inodes: 1, size, uid: 12, gid: 34 });
});

test('links to one file count once, holes not at all, symlinks for themselves', async () => {
  await using disk = await loopFileSystem('ext4', 32);
  const root = join(disk.path, 'tree');
  mkdirSync(join(root, 'a/b'), { recursive: true });
  writeFileSync(join(root, 'a/file'), Buffer.alloc(50_000, 1));
  linkSync(join(root, 'a/file'), join(root, 'a/b/again'));
  linkSync(join(root, 'a/file'), join(root, 'a/b/and-again'));
  writeFileSync(join(root, 'sparse'), '');
  truncateSync(join(root, 'sparse'), 2 ** 40);
  symlinkSync('/usr', join(root, 'link'));
  const { inodes, size } = measureTree(root, never) ?? {};
  expect(inodes).toBe(6);
  expect(size).toBe(Number(execFileSync('du', ['-sB1', root]).toString().split('\t')[0]));
});

test('a real tree measures what du says', () => {
  const root = '/usr/share/perl5';
  const { inodes, size } = measureTree(root, never) ?? {};
  expect(size).toBe(Number(execFileSync('du', ['-sB1', root]).toString().split('\t')[0]));
  expect(inodes).toBe(
    Number(execFileSync('du', ['-s', '--inodes', root]).toString().split('\t')[0]),
  );
});

test('what is mounted inside is not counted, even a bind mount of the same file system', async () => {
  await using folder = await temporaryFolder('measure-mount');
  const [inside, elsewhere] = [join(folder.path, 'tree/mnt'), join(folder.path, 'elsewhere')];
  mkdirSync(inside, { recursive: true });
  mkdirSync(elsewhere);
  writeFileSync(join(elsewhere, 'large'), Buffer.alloc(100_000));
  execFileSync('mount', ['--bind', elsewhere, inside]);
  try {
    expect(measureTree(join(folder.path, 'tree'), never)?.inodes).toBe(1);
  } finally {
    execFileSync('umount', [inside]);
  }
});

test('a tree that costs more than its budget is given up', async () => {
  await using folder = await temporaryFolder('measure-budget');
  for (let n = 0; n < 20; n++) writeFileSync(join(folder.path, String(n)), '');
  expect(measureTree(folder.path, never, { entries: 19, ms: Infinity })).toBeUndefined();
  expect(measureTree(folder.path, never, { entries: 20, ms: Infinity })?.inodes).toBe(21);
  expect(measureTree(folder.path, never, { entries: 20, ms: -1 })).toBeUndefined();
});

test('a tree that is gone is not found, and named', () => {
  expect(() => measureTree('/nowhere/tree', never)).toThrow(
    expect.objectContaining({
      code: 'NotFound',
      message: expect.stringContaining('/nowhere/tree'),
    }),
  );
});
