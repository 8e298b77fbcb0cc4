import {
  access,
  chmod,
  cp,
  link,
  mkdir,
  mkdtemp,
  readFile,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { run } from '../support/run.ts';
import { cache } from './containerd.ts';

/** An image made by umoci: the archive that containerd imports, and what it holds as umoci sees it. */
export interface Image {
  /** As containerd knows it after the import with this base name. */
  readonly reference: string;
  readonly baseName: string;
  /** An OCI image layout in a tar file. */
  readonly archive: string;
  /** The same layout as a folder. */
  readonly layout: string;
  readonly tag: string;
  readonly layers: number;
  /** A file with what listTree says of the root that umoci makes of it. */
  readonly tree: string;
}

const DEBIAN_SUITE = 'bookworm';

/** Adds a layer to an image by `umoci insert`. */
type AddLayer = (...args: readonly string[]) => Promise<string>;

/** A Debian as debootstrap makes it, below two layers that change, replace and hide some of it. */
export const debianImage = (): Promise<Image> =>
  cachedImage('debian', 4, async (work, add) => {
    const tree = join(work, 'debian');
    await run('debootstrap', ['--variant=minbase', DEBIAN_SUITE, tree]);
    // Devices belong to the runtime, and what apt keeps only makes the image larger.
    for (const path of ['dev', 'var/cache/apt', 'var/lib/apt/lists']) {
      await rm(join(tree, path), { recursive: true, force: true });
      await mkdir(join(tree, path), { recursive: true });
    }
    await add(tree, '/');
    await rm(tree, { recursive: true });
    await add(await unusualFiles(work), '/unusual');
    await add('--whiteout', '/etc/motd');
    const motd = join(work, 'issue');
    await writeFile(motd, 'replaced by a later layer\n');
    await add(motd, '/etc/issue');
  });

/** Parts of a Debian that make layers of their own, beside one for the rest. */
const PARTS = [
  'usr/bin',
  'usr/sbin',
  'usr/include',
  'usr/libexec',
  'usr/lib/gcc',
  'usr/lib/git-core',
  'usr/lib/python3.11',
  'usr/lib/x86_64-linux-gnu',
  'usr/share/doc',
  'usr/share/locale',
  'usr/share/perl',
];

/** A Debian with compilers: some 20 000 entries, in one layer or in twelve. For measurements. */
export const bigImage = (as: 'one layer' | 'twelve layers'): Promise<Image> =>
  cachedImage(
    `big in ${as}`.replaceAll(' ', '-'),
    as === 'one layer' ? 1 : 12,
    async (work, add) => {
      const tree = join(work, 'debian');
      const packages = '--include=build-essential,git,python3';
      await run('debootstrap', ['--variant=minbase', packages, DEBIAN_SUITE, tree]);
      for (const left of ['dev', 'var/cache/apt', 'var/lib/apt/lists']) {
        await rm(join(tree, left), { recursive: true, force: true });
      }
      const parts = as === 'one layer' ? [] : PARTS;
      for (const [index, part] of parts.entries()) {
        await rename(join(tree, part), join(work, `part-${index}`));
      }
      await add(tree, '/');
      for (const [index, part] of parts.entries())
        await add(join(work, `part-${index}`), `/${part}`);
      await rm(tree, { recursive: true });
    },
  );

/** Busybox, some unusual files, and layers that remove a file and replace a folder. */
export const smallImage = (): Promise<Image> =>
  cachedImage('small', 4, async (work, add) => {
    const tree = join(work, 'base');
    await mkdir(join(tree, 'bin'), { recursive: true });
    await mkdir(join(tree, 'etc/replaced'), { recursive: true });
    await cp('/bin/busybox', join(tree, 'bin/busybox'));
    for (const tool of [
      'sh',
      'cat',
      'ls',
      'rm',
      'mkdir',
      'ln',
      'chmod',
      'sleep',
      'touch',
      'test',
    ]) {
      await symlink('busybox', join(tree, 'bin', tool));
    }
    await writeFile(join(tree, 'etc/kept'), 'from the first layer\n');
    await writeFile(join(tree, 'etc/removed'), 'hidden by a whiteout\n');
    await writeFile(join(tree, 'etc/replaced/old'), 'hidden by an opaque folder\n');
    await add(tree, '/');
    await add(await unusualFiles(work), '/unusual');
    await add('--whiteout', '/etc/removed');
    const replacement = join(work, 'replacement');
    await mkdir(replacement);
    await writeFile(join(replacement, 'new'), 'beside nothing old\n');
    await add('--opaque', replacement, '/etc/replaced');
  });

/** What copies and layers get wrong: links, modes, owners, capabilities, fifos, holes, odd names. */
async function unusualFiles(work: string): Promise<string> {
  const tree = join(work, 'unusual');
  await mkdir(join(tree, 'folder of mode 1777'), { recursive: true });
  await chmod(join(tree, 'folder of mode 1777'), 0o1777);
  await writeFile(join(tree, 'twin'), 'one file of two names\n');
  await link(join(tree, 'twin'), join(tree, 'other twin'));
  await symlink('/nowhere/at/all', join(tree, 'dangling'));
  await writeFile(join(tree, 'setuid'), '#!/bin/sh\n');
  await run('chown', ['1234:5678', join(tree, 'setuid')]);
  await chmod(join(tree, 'setuid'), 0o4711);
  await cp('/bin/busybox', join(tree, 'capable'));
  await run('setcap', ['cap_net_raw+ep', join(tree, 'capable')]);
  await run('mkfifo', [join(tree, 'fifo')]);
  await run('mknod', [join(tree, 'null'), 'c', '1', '3']);
  await run('truncate', ['--size', '3M', join(tree, 'hole')]);
  await writeFile(join(tree, 'näme with\ttab'), '');
  await writeFile(join(tree, 'l'.repeat(250)), 'a long name\n');
  await run('touch', ['--date', '2001-02-03T04:05:06Z', join(tree, 'twin')]);
  return tree;
}

/** Makes the image once and keeps it; images of an older recipe have another number in their name. */
async function cachedImage(
  name: string,
  layers: number,
  make: (work: string, add: AddLayer) => Promise<void>,
): Promise<Image> {
  const home = join(cache, 'images', `${name}-${RECIPE}`);
  const image: Image = {
    reference: `ballast.invalid/${name}:v1`,
    baseName: `ballast.invalid/${name}`,
    archive: join(home, 'image.tar'),
    layout: join(home, 'layout'),
    tag: 'v1',
    layers,
    tree: join(home, 'tree.json'),
  };
  if (await exists(home)) return image;
  await mkdir(dirname(home), { recursive: true });
  const work = await mkdtemp(join(dirname(home), '.making-'));
  try {
    const layout = join(work, 'result/layout');
    const tag = `${layout}:${image.tag}`;
    await mkdir(dirname(layout));
    await run('umoci', ['--log=error', 'init', '--layout', layout]);
    await run('umoci', ['--log=error', 'new', '--image', tag]);
    await make(work, (...args) => run('umoci', ['--log=error', 'insert', '--image', tag, ...args]));
    // Each insert leaves the manifest and config of the image before it.
    await run('umoci', ['--log=error', 'gc', '--layout', layout]);
    await run('tar', ['-C', layout, '-cf', join(work, 'result/image.tar'), '.']);
    const bundle = join(work, 'bundle');
    await run('umoci', ['--log=error', 'unpack', '--image', tag, bundle]);
    const tree = await listTree(join(bundle, 'rootfs'));
    await writeFile(join(work, 'result/tree.json'), JSON.stringify(tree));
    // Two test files may make it at once; the second one's work is in vain, not in the way.
    await rename(join(work, 'result'), home).catch(async (error: unknown) => {
      if (!(await exists(home))) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return image;
}

/** Grows whenever a recipe above changes. */
const RECIPE = 3;

/** What the image's root should be, file by file. */
export async function expectedTree(image: Image): Promise<unknown> {
  return JSON.parse(await readFile(image.tree, 'utf8'));
}

/**
 * A line for each file below `folder`: type, mode, owner, size, time, link target, device; then the
 * digests of the regular files and the capabilities. Sizes, link counts and times of folders depend on
 * who made them and are left out.
 */
export async function listTree(folder: string): Promise<readonly string[]> {
  const script = `
    cd "$1"
    find . -type d -printf '%P\\td\\t%m\\t%U:%G\\n'
    find . ! -type d -printf '%P\\t%y\\t%m\\t%U:%G\\t%s\\t%n\\t%TY-%Tm-%TdT%TH:%TM\\t%l\\n'
    find . '(' -type c -o -type b ')' -exec stat -c '%n %t:%T' {} +
    find . -type f -exec sha256sum {} +
    getcap -r .`;
  return (await run('sh', ['-ec', script, 'sh', folder])).split('\n').toSorted();
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
