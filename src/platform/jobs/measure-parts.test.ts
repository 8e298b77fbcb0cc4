import { link, mkdir, symlink, writeFile } from 'node:fs/promises';
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../../../test/support/temporary.ts';
import { never } from './cancellation.ts';
import { measureParts } from './measure-parts.ts';

const bytesOf = (...paths: readonly string[]): number =>
  paths.reduce((sum, path) => sum + lstatSync(path).blocks * 512, 0);

test('each inode counts once, for the part that the nearest rule says', async () => {
  await using folder = await temporaryFolder('parts');
  const at = (path: string): string => join(folder.path, path);
  for (const path of ['closed/in', 'part/in', 'part/apart', 'apart', 'plain']) {
    await mkdir(at(path), { recursive: true });
  }
  const files = ['closed/in/a', 'part/in/b', 'part/apart/c', 'apart/d', 'plain/e', 'f'];
  for (const [index, file] of files.entries()) {
    await writeFile(at(file), Buffer.alloc(5000 * (index + 1)));
  }
  await link(at('part/in/b'), at('part/in/again'));
  await link(at('closed/in/a'), at('part/in/of-another-part'));
  await symlink('/', at('part/in/out'));
  const found = measureParts(
    folder.path,
    'rest',
    new Map([
      ['closed', { own: 'rest', below: undefined }],
      ['part', { own: 'rest', below: 'part' }],
      ['part/apart', { own: undefined, below: undefined }],
      ['apart', { own: 'apart', below: 'apart' }],
      ['f', { own: 'file', below: undefined }],
      ['not/there', { own: 'none', below: 'none' }],
    ]),
    never,
  );
  expect(found).toEqual(
    new Map([
      ['rest', bytesOf(folder.path, at('closed'), at('part'), at('plain'), at('plain/e'))],
      ['part', bytesOf(at('part/in'), at('part/in/b'), at('part/in/out'))],
      ['apart', bytesOf(at('apart'), at('apart/d'))],
      ['file', bytesOf(at('f'))],
    ]),
  );
});

test('a root that is not there is named', () => {
  expect(() => measureParts('/nowhere/root', 'rest', new Map(), never)).toThrow(
    /measuring "\/nowhere\/root"/,
  );
});
