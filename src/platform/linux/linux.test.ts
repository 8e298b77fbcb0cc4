import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { loopFileSystem } from '../../../test/support/loop-fs.ts';
import { temporaryFolder } from '../../../test/support/temporary.ts';
import { createLinux } from './linux.ts';

const linux = createLinux();

test('a file system that keeps file types in directories is told from one that does not', async () => {
  await using modern = await loopFileSystem('ext4', 16);
  await using old = await loopFileSystem('ext4', 16, ['-O', '^filetype']);
  expect(linux.supportsDType(modern.path)).toBe(true);
  expect(linux.supportsDType(old.path)).toBe(false);
  expect(await readdir(old.path)).toEqual(['lost+found']);
});

test('an overlay mount is tried without a trace in the mount table', async () => {
  await using folder = await temporaryFolder('overlay-probe');
  const [lower, upper, work] = ['l', 'u', 'w'].map((name) => join(folder.path, name));
  if (lower === undefined || upper === undefined || work === undefined) throw new Error('no names');
  for (const path of [lower, upper, work]) await mkdir(path);
  const tries = (options: readonly string[]) =>
    linux.canMountOverlay({ lower, upper, work, options });
  expect(tries([])).toBe(true);
  expect(tries(['index=off', 'userxattr'])).toBe(true);
  expect(tries(['no-such-option'])).toBe(false);
  expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(folder.path);
});

test('probing or flushing a directory that is not there names it', async () => {
  const path = '/nowhere/at-all';
  const probe = { lower: path, upper: path, work: path, options: [] };
  for (const call of [
    () => linux.canMountOverlay(probe),
    () => linux.supportsDType(path),
    () => linux.syncfs(path),
  ]) {
    expect(call).toThrow(expect.objectContaining({ code: 'NotFound' }));
    expect(call).toThrow(path);
  }
});
