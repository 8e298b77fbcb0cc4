// Property: whatever tree there is, its copy is equal to it in everything that a program can read:
// names, bytes, holes, which names are one file, types, devices, owners, modes, times, attributes.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  statfsSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { lchown, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { loopFileSystem } from '../../../test/support/loop-fs.ts';
import { temporaryFolder } from '../../../test/support/temporary.ts';
import { OpError } from '../../base/errors.ts';
import { AT_FDCWD, cstring, mknodat } from '../linux/files.ts';
import { never, type Cancellation } from './cancellation.ts';
import { copyTree } from './copy-tree.ts';
import { removeTree } from './remove-tree.ts';

const SOCKET_MODE = 0o140600;

interface Thing {
  readonly kind:
    | 'directory'
    | 'file'
    | 'sparse'
    | 'hardlink'
    | 'symlink'
    | 'fifo'
    | 'socket'
    | 'device';
  readonly name: string;
  /** Which of the directories made so far it goes into, and which file it links to. */
  readonly at: number;
  readonly bytes: Uint8Array;
  readonly mode: number;
  readonly owner: number;
  readonly time: readonly [seconds: number, nanoseconds: number];
  readonly attribute: readonly [name: string, value: Uint8Array] | undefined;
}

const names = fc.oneof(
  fc.stringMatching(/^[a-z]{1,8}$/),
  fc.constantFrom('with space', 'new\nline', 'ütf-8', '-rf', 'x'.repeat(255), '\\back', '$(x)'),
);

const things: fc.Arbitrary<Thing> = fc.record({
  kind: fc.constantFrom(
    'directory',
    'directory',
    'file',
    'file',
    'sparse',
    'hardlink',
    'hardlink',
    'symlink',
    'fifo',
    'socket',
    'device',
  ),
  name: names,
  at: fc.nat(),
  bytes: fc.uint8Array({ maxLength: 9000 }),
  mode: fc.integer({ min: 0, max: 0o7777 }),
  owner: fc.constantFrom(0, 1000, 100_000, 4_000_000_000),
  time: fc.tuple(fc.nat(2_000_000_000), fc.nat(999_999_999)),
  attribute: fc.option(
    fc.tuple(
      fc.constantFrom('user.note', 'trusted.overlay.opaque', 'trusted.x', 'security.other'),
      fc.uint8Array({ maxLength: 100 }),
    ),
    { nil: undefined },
  ),
});

function build(root: string, list: readonly Thing[]): void {
  mkdirSync(root);
  const directories = [root];
  const files: string[] = [];
  const made: [string, Thing][] = [[root, { ...ROOT, kind: 'directory' }]];
  const used = new Set<string>();
  for (const thing of list) {
    const path = join(directories[thing.at % directories.length] ?? root, thing.name);
    if (used.has(path)) continue;
    used.add(path);
    const target = files[thing.at % Math.max(files.length, 1)];
    if (thing.kind === 'hardlink' && target === undefined) continue;
    if (thing.kind === 'hardlink' && target !== undefined) linkSync(target, path);
    else make(path, thing);
    if (thing.kind === 'directory') directories.push(path);
    else if (thing.kind !== 'hardlink') files.push(path);
    if (thing.kind !== 'hardlink') made.push([path, thing]);
  }
  // What is inside is made before a directory gets its mode and times.
  for (const [path, thing] of made.reverse()) decorate(path, thing);
}

const ROOT: Omit<Thing, 'kind'> = {
  name: '',
  at: 0,
  bytes: new Uint8Array(),
  mode: 0o2751,
  owner: 1234,
  time: [1_234_567_890, 123_456_789],
  attribute: ['user.root', new Uint8Array([1, 0, 2])],
};

function make(path: string, { kind, bytes, at }: Thing): void {
  if (kind === 'directory') mkdirSync(path);
  else if (kind === 'file') writeFileSync(path, bytes);
  else if (kind === 'sparse') writeSparse(path, bytes, at);
  else if (kind === 'symlink') symlinkSync(`../${'t'.repeat(1 + (at % 300))}`, path);
  else if (kind === 'fifo') execFileSync('mkfifo', ['--', path]);
  else if (kind === 'device')
    execFileSync('mknod', ['--', path, at % 2 ? 'c' : 'b', '0', `${at % 300}`]);
  else mknodat(AT_FDCWD, cstring(path), SOCKET_MODE, 0);
}

/** Data, a hole, data, a hole. */
function writeSparse(path: string, bytes: Uint8Array, at: number): void {
  const fd = openSync(path, 'w');
  writeSync(fd, bytes, 0, bytes.length, (at % 20) * 4096);
  writeSync(fd, bytes, 0, bytes.length, 40 * 4096);
  closeSync(fd);
  if (at % 3 !== 0) truncateSync(path, 80 * 4096 + (at % 5));
}

function decorate(path: string, { kind, mode, owner, time, attribute }: Thing): void {
  execFileSync('chown', ['-h', `${owner}:${owner + 1}`, path]);
  const isPlain = kind === 'file' || kind === 'sparse' || kind === 'directory';
  const allowed = isPlain || !attribute?.[0].startsWith('user.');
  if (attribute !== undefined && allowed) {
    const value = `0x${Buffer.from(attribute[1]).toString('hex')}`;
    execFileSync('setfattr', ['-h', '-n', attribute[0], '-v', value, '--', path]);
  }
  if (kind !== 'symlink') chmodSync(path, mode);
  const stamp = `@${time[0]}.${String(time[1]).padStart(9, '0')}`;
  execFileSync('touch', ['-h', '-d', stamp, '--', path]);
}

/** Everything that two equal trees agree on, as other programs see it. */
function describe(root: string): string {
  const shell = (script: string) =>
    execFileSync('sh', ['-c', script], {
      cwd: root,
      maxBuffer: 1 << 26,
      stdio: ['ignore', 'pipe', 'ignore'],
    }).toString('latin1');
  const format = '%P|%y|%m|%U:%G|%n|%l|%T@|%A@';
  const entries = shell(`find . -type f -printf '${format}|%s\\0' -o -printf '${format}\\0'`);
  const devices = shell('find . \\( -type c -o -type b \\) -exec stat -c "%n %t:%T" {} +');
  const attributes = shell('getfattr -R -P -h -d -m - -e hex . 2>/dev/null || true');
  const sums = shell('find . -type f -print0 | sort -z | xargs -0 -r sha256sum -z');
  const sorted = (text: string, separator: string) => text.split(separator).sort().join('\n');
  return [
    sorted(entries, '\0'),
    sorted(devices, '\n'),
    sorted(attributes, '\n\n'),
    sums,
    sharedNames(shell("find . ! -type d -links +1 -printf '%i %P\\0'")),
  ].join('\n\n');
}

/** Which names are one file, without its number. */
function sharedNames(listing: string): string {
  const groups = new Map<string, string[]>();
  for (const line of listing.split('\0').filter(Boolean)) {
    const space = line.indexOf(' ');
    const names = groups.get(line.slice(0, space)) ?? [];
    groups.set(line.slice(0, space), [...names, line.slice(space + 1)].sort());
  }
  return [...groups.values()].map(String).sort().join('\n');
}

for (const type of ['ext4', 'btrfs', 'xfs'] as const) {
  test(`a copy on ${type} is equal to its original in everything that can be read`, async () => {
    await using disk = await loopFileSystem(type, type === 'xfs' ? 320 : 128);
    execFileSync('mount', ['-o', 'remount,noatime', disk.path]);
    let round = 0;
    fc.assert(
      fc.property(fc.array(things, { maxLength: 25 }), (list) => {
        const from = join(disk.path, `from-${++round}`);
        const to = join(disk.path, `to-${round}`);
        build(from, list);
        const before = describe(from);
        mkdirSync(to);
        copyTree(from, to, never);
        expect(describe(to)).toBe(before);
        execFileSync('rm', ['-rf', from, to]);
      }),
      { numRuns: 12 },
    );
  });
}

test('names that are no UTF-8 keep their bytes', async () => {
  await using folder = await temporaryFolder('names');
  const [from, to] = [join(folder.path, 'from'), join(folder.path, 'to')];
  await mkdir(from);
  await mkdir(to);
  const name = Buffer.from([0xff, 0x80, 0x41]);
  await writeFile(Buffer.concat([Buffer.from(`${from}/`), name]), 'bytes');
  copyTree(from, to, never);
  expect(await readFile(Buffer.concat([Buffer.from(`${to}/`), name]), 'utf8')).toBe('bytes');
});

test('file capabilities survive, although a change of owner drops them', async () => {
  await using folder = await temporaryFolder('capabilities');
  const [from, to] = [join(folder.path, 'from'), join(folder.path, 'to')];
  await mkdir(from);
  await mkdir(to);
  const file = join(from, 'ping');
  await writeFile(file, '#!');
  await lchown(file, 1000, 1000);
  const capability = '0x0100000200200000000000000000000000000000';
  execFileSync('setfattr', ['-n', 'security.capability', '-v', capability, file]);
  copyTree(from, to, never);
  const read = ['-n', 'security.capability', '-e', 'hex', '--only-values', join(to, 'ping')];
  expect(execFileSync('getfattr', read).toString('hex')).toBe(capability.slice(2));
});

test('holes take no room in the copy', async () => {
  await using disk = await loopFileSystem('ext4', 64);
  const [from, to] = [join(disk.path, 'from'), join(disk.path, 'to')];
  mkdirSync(from);
  mkdirSync(to);
  writeFileSync(join(from, 'image'), 'start');
  truncateSync(join(from, 'image'), 10 * 2 ** 30);
  copyTree(from, to, never);
  expect(statSync(join(to, 'image')).size).toBe(10 * 2 ** 30);
  expect(statSync(join(to, 'image')).blocks).toBe(statSync(join(from, 'image')).blocks);
});

for (const type of ['btrfs', 'xfs'] as const) {
  test(`on ${type} a copy shares its bytes with the original`, async () => {
    await using disk = await loopFileSystem(type, 400);
    const [from, to] = [join(disk.path, 'from'), join(disk.path, 'to')];
    mkdirSync(from);
    mkdirSync(to);
    writeFileSync(join(from, 'layer'), Buffer.alloc(64 * 2 ** 20, 'x'));
    execFileSync('sync', ['-f', disk.path]);
    const free = () => statfsSync(disk.path).bfree * statfsSync(disk.path).bsize;
    const before = free();
    copyTree(from, to, never);
    execFileSync('sync', ['-f', disk.path]);
    expect(before - free()).toBeLessThan(8 * 2 ** 20);
    expect(execFileSync('cmp', [join(from, 'layer'), join(to, 'layer')]).length).toBe(0);
  });
}

test('a tree deeper than a path may be long is copied, links across it included', async () => {
  await using folder = await temporaryFolder('deep');
  const [from, to] = [join(folder.path, 'from'), join(folder.path, 'to')];
  mkdirSync(from);
  mkdirSync(to);
  // 30 000 characters: a process of its own walks down, as no call takes such a path.
  const walk = (cwd: string, each: string, below: string) => {
    const loop = `for (let n = 0; n < 150; n++) { ${each} process.chdir(name); }`;
    const script = `const fs = require('fs'); const name = 'd'.repeat(200); ${loop} ${below}`;
    return execFileSync(process.execPath, ['-e', script], { cwd }).toString();
  };
  const fill =
    "fs.writeFileSync('file', 'bottom'); fs.mkdirSync('n'); fs.linkSync('file', 'n/other');";
  walk(from, 'fs.mkdirSync(name);', fill);
  try {
    copyTree(from, to, never);
    const look =
      "process.stdout.write(fs.readFileSync('file') + ' ' + fs.statSync('n/other').nlink)";
    expect(walk(to, '', look)).toBe('bottom 2');
  } finally {
    removeTree(from, never);
    removeTree(to, never);
  }
});

test('a full disk ends a copy with the cause and the file it was at', async () => {
  await using disk = await loopFileSystem('ext4', 16);
  await using folder = await temporaryFolder('full');
  const to = join(disk.path, 'to');
  mkdirSync(to);
  writeFileSync(join(folder.path, 'large'), Buffer.alloc(32 * 2 ** 20, 1));
  expect(() => copyTree(folder.path, to, never)).toThrow(
    expect.objectContaining({
      code: 'ResourceExhausted',
      message: expect.stringMatching(/large.*no space left/),
    }),
  );
});

test('a copy that is given up stops in the middle of a file', async () => {
  await using folder = await temporaryFolder('canceled');
  const [from, to] = [join(folder.path, 'from'), join(folder.path, 'to')];
  mkdirSync(from);
  mkdirSync(to);
  writeFileSync(join(from, 'large'), Buffer.alloc(64 * 2 ** 20, 1));
  let checks = 0;
  const cancellation: Cancellation = {
    check: () => {
      if (++checks === 3) throw new OpError('Canceled', 'enough');
    },
  };
  expect(() => copyTree(from, to, cancellation)).toThrow('enough');
  expect(statSync(join(to, 'large')).size).toBeLessThan(64 * 2 ** 20);
});

test('a parent that is gone is named', () => {
  expect(() => copyTree('/nowhere/from', '/tmp', never)).toThrow(
    expect.objectContaining({
      code: 'NotFound',
      message: expect.stringContaining('/nowhere/from'),
    }),
  );
});
