import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../../../test/support/temporary.ts';
import { OpError } from '../../base/errors.ts';
import { never } from './cancellation.ts';
import { removeTree } from './remove-tree.ts';

test('links are removed and never followed', async () => {
  await using folder = await temporaryFolder('remove-links');
  const outside = join(folder.path, 'outside');
  const tree = join(folder.path, 'tree');
  mkdirSync(outside);
  writeFileSync(join(outside, 'precious'), 'kept');
  mkdirSync(tree);
  symlinkSync(outside, join(tree, 'directory'));
  symlinkSync(join(outside, 'precious'), join(tree, 'file'));
  symlinkSync(outside, join(folder.path, 'link'));
  removeTree(tree, never);
  removeTree(join(folder.path, 'link'), never);
  expect(readdirSync(folder.path)).toEqual(['outside']);
  expect(readdirSync(outside)).toEqual(['precious']);
});

test('nothing there is fine, and so is a parent that is not there', async () => {
  await using folder = await temporaryFolder('remove-absent');
  removeTree(join(folder.path, 'absent'), never);
  removeTree(join(folder.path, 'absent/child'), never);
});

test('a mount inside stays with what is in it and above it, is named, and all the rest goes', async () => {
  await using folder = await temporaryFolder('remove-mount');
  const tree = join(folder.path, 'tree');
  const mount = join(tree, 'a/mnt');
  const other = join(folder.path, 'other');
  mkdirSync(mount, { recursive: true });
  mkdirSync(other);
  mkdirSync(join(tree, 'a/sibling'));
  mkdirSync(join(tree, 'b/c'), { recursive: true });
  writeFileSync(join(tree, 'a/file'), '');
  writeFileSync(join(other, 'precious'), 'kept');
  execFileSync('mount', ['--bind', other, mount]);
  try {
    expect(() => removeTree(tree, never)).toThrow(
      expect.objectContaining({
        code: 'FailedPrecondition',
        message: expect.stringContaining(`"${mount}" is a mount point`),
      }),
    );
    expect(execFileSync('find', ['.'], { cwd: tree }).toString()).toBe(
      '.\n./a\n./a/mnt\n./a/mnt/precious\n',
    );
  } finally {
    execFileSync('umount', [mount]);
  }
  removeTree(tree, never);
  expect(readdirSync(folder.path)).toEqual(['other']);
});

test('a file that something is mounted on stays too', async () => {
  await using folder = await temporaryFolder('remove-file-mount');
  const tree = join(folder.path, 'tree');
  mkdirSync(tree);
  writeFileSync(join(tree, 'resolv.conf'), '');
  writeFileSync(join(folder.path, 'source'), 'kept');
  execFileSync('mount', ['--bind', join(folder.path, 'source'), join(tree, 'resolv.conf')]);
  try {
    expect(() => removeTree(tree, never)).toThrow('resolv.conf" is a mount point');
  } finally {
    execFileSync('umount', [join(tree, 'resolv.conf')]);
  }
  removeTree(tree, never);
  expect(existsSync(tree)).toBe(false);
});

test('10 000 levels and 20 000 entries go, with names that are no UTF-8', async () => {
  await using folder = await temporaryFolder('remove-large');
  const deep = join(folder.path, 'deep');
  const wide = join(folder.path, 'wide');
  mkdirSync(deep);
  mkdirSync(wide);
  const script = `for (let n = 0; n < 10000; n++) { fs.mkdirSync('deep'); process.chdir('deep'); }`;
  execFileSync(process.execPath, ['-e', `const fs = require('fs'); ${script}`], { cwd: deep });
  for (let n = 0; n < 20_000; n++) {
    if (n % 10 === 0) mkdirSync(join(wide, String(n)));
    else writeFileSync(join(wide, String(n)), '');
  }
  writeFileSync(Buffer.concat([Buffer.from(`${wide}/`), Buffer.from([0xff, 0xfe])]), '');
  removeTree(deep, never);
  removeTree(wide, never);
  expect(readdirSync(folder.path)).toEqual([]);
});

test('a directory that shuts out its owner goes, without the rights of root', async () => {
  await using folder = await temporaryFolder('remove-closed');
  chmodSync(folder.path, 0o777);
  const script = `
    process.setgid(65534); process.setuid(65534);
    const { removeTree } = await import(process.argv[1]);
    const fs = await import('node:fs');
    fs.mkdirSync('tree/closed/deeper', { recursive: true });
    fs.writeFileSync('tree/closed/deeper/file', '');
    fs.chmodSync('tree/closed/deeper', 0o500);
    fs.chmodSync('tree/closed', 0);
    removeTree(process.cwd() + '/tree', { check() {} });`;
  const body = join(import.meta.dirname, 'remove-tree.ts');
  execFileSync(process.execPath, ['--input-type=module', '-e', script, body], { cwd: folder.path });
  expect(readdirSync(folder.path)).toEqual([]);
});

test('a removal that is given up stops at once, and what is left can be removed', async () => {
  await using folder = await temporaryFolder('remove-canceled');
  const tree = join(folder.path, 'tree');
  mkdirSync(tree);
  for (let n = 0; n < 100; n++) writeFileSync(join(tree, String(n)), '');
  let left = 50;
  const check = () => {
    if (left-- === 0) throw new OpError('Canceled', 'enough');
  };
  expect(() => removeTree(tree, { check })).toThrow('enough');
  expect(readdirSync(tree)).toHaveLength(50);
  removeTree(tree, never);
  expect(existsSync(tree)).toBe(false);
});
