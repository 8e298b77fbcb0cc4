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
import { loopFileSystem } from '../support/loop-fs.ts';
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
  /**
   * Folders in which a layer that does not name them changes a name, which get the time of that; and the root,
   * which on overlay every layer has anew.
   */
  readonly touched: readonly string[];
  /** A file with what listTree says of the root that umoci makes of it. */
  readonly tree: string;
}

const DEBIAN_SUITE = 'bookworm';

type Made = Pick<Image, 'layers' | 'touched'>;

/** Adds a layer to an image by `umoci insert`. */
type AddLayer = (...args: readonly string[]) => Promise<string>;

const DEBIAN: Made = { layers: 4, touched: ['', 'etc'] };
/** Of many small files. */
const PACKAGES = '--include=ncurses-term,perl,zsh-common';

/** A Debian of over 10 000 files as debootstrap makes it, below layers that change, replace and hide some of it. */
export const debianImage = (): Promise<Image> =>
  umociImage('debian', DEBIAN, async (work, add) => {
    const tree = join(work, 'debian');
    await run('debootstrap', ['--variant=minbase', PACKAGES, DEBIAN_SUITE, tree]);
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

/** The same image with layers of zstd, which this umoci cannot read: it is to give the same tree. */
export const zstdImage = (): Promise<Image> =>
  cachedImage('debian-zstd', DEBIAN, async (result, tag) => {
    const { layout, tree } = await debianImage();
    const zstd = ['--insecure-policy', 'copy', '--quiet', '--dest-compress-format', 'zstd'];
    await run('skopeo', [...zstd, `oci:${layout}:${tag}`, `oci:${result}/layout:${tag}`]);
    // A skopeo that cannot copies gzip as it is.
    await run('grep', ['-rq', 'layer.v1.tar+zstd', join(result, 'layout')]);
    await cp(tree, join(result, 'tree.json'));
  });

/** The same files in twelve layers, the last of which change, replace and hide some of the first. */
export const twelveLayers = (): Promise<Image> =>
  umociImage('debian-in-twelve-layers', TWELVE, async (work, add) => {
    const { layout, tag } = await debianImage();
    const bundle = join(work, 'debian');
    await umoci('unpack', '--image', `${layout}:${tag}`, bundle);
    await addInParts(join(bundle, 'rootfs'), DEBIAN_PARTS, add);
    const replacement = join(work, 'replacement');
    await mkdir(replacement);
    await writeFile(join(replacement, 'only'), 'beside nothing old\n');
    await add('--whiteout', '/etc/cron.daily');
    await add('--opaque', replacement, '/etc/apt');
    await add(join(replacement, 'only'), '/etc/skel');
  });

const DEBIAN_PARTS = [
  'usr/bin',
  'usr/lib/x86_64-linux-gnu',
  'usr/share/doc',
  'usr/share/locale',
  'usr/share/man',
  'usr/share/perl',
  'usr/share/zoneinfo',
  'var/lib/dpkg',
];
const TWELVE: Made = {
  layers: 12,
  touched: [...DEBIAN_PARTS.map((part) => dirname(part)), 'etc', ''],
};

/** Some folders of a tree as layers of their own, above one for the rest. */
async function addInParts(tree: string, parts: readonly string[], add: AddLayer): Promise<void> {
  const apart = `${tree}-parts`;
  await mkdir(apart);
  for (const [index, part] of parts.entries()) {
    await rename(join(tree, part), join(apart, String(index)));
  }
  await add(tree, '/');
  for (const [index, part] of parts.entries()) await add(join(apart, String(index)), `/${part}`);
  await rm(tree, { recursive: true });
}

/** Parts of a Debian with compilers that make layers of their own. */
const BIG_PARTS = [
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
  umociImage(
    `big in ${as}`.replaceAll(' ', '-'),
    { layers: as === 'one layer' ? 1 : 12, touched: [] },
    async (work, add) => {
      const tree = join(work, 'debian');
      const packages = '--include=build-essential,git,python3';
      await run('debootstrap', ['--variant=minbase', packages, DEBIAN_SUITE, tree]);
      for (const left of ['dev', 'var/cache/apt', 'var/lib/apt/lists']) {
        await rm(join(tree, left), { recursive: true, force: true });
      }
      await addInParts(tree, as === 'one layer' ? [] : BIG_PARTS, add);
    },
  );

/** Busybox, some unusual files, and layers that remove a file and replace a folder. */
export const smallImage = (): Promise<Image> =>
  umociImage('small', { layers: 4, touched: ['', 'etc'] }, async (work, add) => {
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

/** An image of layers that umoci makes of files, and what it makes of these. */
const umociImage = (
  name: string,
  made: Made,
  make: (work: string, add: AddLayer) => Promise<void>,
): Promise<Image> =>
  cachedImage(name, made, async (result, tag) => {
    // Trees are written thrice on the way, which takes a disk its time.
    await using disk = await loopFileSystem('ext4', 4096);
    const work = disk.path;
    const layout = join(result, 'layout');
    const image = ['--image', `${layout}:${tag}`];
    await umoci('init', '--layout', layout);
    await umoci('new', ...image);
    await make(work, (...args) => umoci('insert', ...image, ...args));
    // Each insert leaves the manifest and config of the image before it.
    await umoci('gc', '--layout', layout);
    const bundle = join(work, 'bundle');
    await umoci('unpack', ...image, bundle);
    const tree = await listTree(join(bundle, 'rootfs'), made.touched);
    await writeFile(join(result, 'tree.json'), JSON.stringify(tree));
  });

const umoci = (...args: readonly string[]): Promise<string> =>
  run('umoci', ['--log=error', ...args]);

/**
 * Makes the image once and keeps it; images of an older recipe have another number in their name. `make` puts
 * `layout` and `tree.json` into a folder.
 */
async function cachedImage(
  name: string,
  made: Made,
  make: (result: string, tag: string) => Promise<void>,
): Promise<Image> {
  const home = join(cache, 'images', `${name}-${RECIPE}`);
  const image: Image = {
    reference: `ballast.invalid/${name}:v1`,
    baseName: `ballast.invalid/${name}`,
    archive: join(home, 'image.tar'),
    layout: join(home, 'layout'),
    tag: 'v1',
    ...made,
    tree: join(home, 'tree.json'),
  };
  if (await exists(home)) return image;
  await mkdir(dirname(home), { recursive: true });
  const result = await mkdtemp(join(dirname(home), '.making-'));
  try {
    await make(result, image.tag);
    await run('tar', ['-C', join(result, 'layout'), '-cf', join(result, 'image.tar'), '.']);
    // Two test files may make it at once; the second one's work is in vain, not in the way.
    await rename(result, home).catch(async (error: unknown) => {
      if (!(await exists(home))) throw error;
    });
  } finally {
    await rm(result, { recursive: true, force: true });
  }
  return image;
}

/** Grows whenever a recipe above changes. */
const RECIPE = 5;

/** What the image's root should be, file by file. */
export async function expectedTree(image: Image): Promise<unknown> {
  return JSON.parse(await readFile(image.tree, 'utf8'));
}

/**
 * A line for each file below `folder`: type, mode, owner, time to the nanosecond, size, links, link target; then
 * devices, attributes, names of one file, and digests of regular files. Sizes and links of folders depend on the
 * file system and are left out, as are times of those that are `touched`.
 */
export async function listTree(
  folder: string,
  touched: readonly string[],
): Promise<readonly string[]> {
  const script = `
    cd "$1"
    find . -type d -printf '%P\\td\\t%m\\t%U:%G\\t%T@\\n'
    find . ! -type d -printf '%P\\t%y\\t%m\\t%U:%G\\t%T@\\t%s\\t%n\\t%l\\n'
    find . '(' -type c -o -type b ')' -exec stat -c '%n %t:%T' {} +
    find . -type f -exec sha256sum {} +
    find . ! -type d -links +1 -printf '%i\\t%P\\n' | sort | awk -F '\\t' '
      $1 != inode { inode = $1; first = $2 } { print first " is " $2 }'
    attributes=$(getfattr -d -R -P -h -m - -e hex .)
    echo "$attributes" | awk '/^# file: / { name = substr($0, 9) } /=/ { print name " has " $0 }'`;
  const lines = (await run('sh', ['-ec', script, 'sh', folder])).split('\n');
  const untimed = (line: string): string => {
    const [name = '', type, ...rest] = line.split('\t');
    return type === 'd' && touched.includes(name)
      ? [name, type, rest[0], rest[1]].join('\t')
      : line;
  };
  return lines.map(untimed).toSorted();
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
