// The map of who may import whom. ARCHITECTURE.md draws it; this file enforces it.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { expect, test } from 'vitest';

const SRC = join(import.meta.dirname, '../src');

/** Types, value types and constants only. Anyone may import these; they import only base and each other. */
const CONTRACTS: ReadonlySet<string> = new Set([
  'platform/platform.ts',
  'metadata/metadata.ts',
  'content/content.ts',
  'snapshotters/snapshotter.ts',
  'snapshotters/driver.ts',
  'diff/diff.ts',
  'namespaces/namespace.ts',
  'namespaces/books.ts',
  'images/image.ts',
  'leases/lease.ts',
  'containers/container.ts',
  'mounts/mount.ts',
  'events/event.ts',
  'gc/collectible.ts',
  'disk/disk.ts',
  'gc/gc.ts',
  'streams/stream.ts',
  'transfer/transfer.ts',
]);

/** Implementations: a folder may import the folders named here, itself and any contract. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  base: [],
  platform: ['base'],
  metadata: ['base', 'platform'],
  content: ['base', 'platform', 'metadata'],
  snapshotters: ['base', 'platform', 'metadata'],
  diff: ['base', 'platform'],
  namespaces: ['base', 'metadata'],
  images: ['base', 'metadata'],
  leases: ['base', 'metadata'],
  containers: ['base', 'metadata'],
  mounts: ['base', 'metadata'],
  events: ['base'],
  streams: ['base'],
  transfer: ['base', 'diff'],
  gc: ['base'],
  disk: ['base', 'gc', 'platform'],
  grpc: ['base'],
  daemon:
    'base platform metadata content snapshotters diff namespaces images leases containers mounts events streams transfer gc disk grpc'.split(
      ' ',
    ),
  frontend: ['base', 'grpc'],
};

/** Where the programs are put together; anything may meet here. */
const ROOTS: ReadonlySet<string> = new Set(['main.ts', 'version.ts']);

/** One door for each package or builtin that is dangerous or slow to load. */
const DOORS: Readonly<Record<string, RegExp>> = {
  koffi: /^platform\/linux\//,
  piscina: /^platform\/jobs\//,
  'node:worker_threads': /^platform\/jobs\//,
  'node:child_process': /^frontend\//,
  level: /^metadata\//,
  'classic-level': /^metadata\//,
  '@grpc/grpc-js': /^grpc\/proxy\//,
  protobufjs: /^grpc\/gen\//,
  re2js: /^base\/filters\.ts/,
  'smol-toml': /^daemon\//,
  commander: /^frontend\/cli\//,
};

interface Import {
  readonly file: string;
  readonly specifier: string;
  readonly typeOnly: boolean;
}

function* imports(): Iterable<Import> {
  for (const entry of readdirSync(SRC, { recursive: true, encoding: 'utf8' })) {
    const file = entry.split(sep).join('/');
    if (!file.endsWith('.ts') || file.endsWith('.test.ts') || file.endsWith('.d.ts')) continue;
    const source = readFileSync(join(SRC, file), 'utf8');
    for (const match of source.matchAll(
      /(?:^(?:import|export)(?<type>\s+type)?\b[^'";]*?from\s*|^import\s*|\bimport\(\s*|\brequire\(\s*|createRequire\([^)]*\)\(\s*)['"](?<specifier>[^'"]+)['"]/gm,
    )) {
      const { type, specifier = '' } = match.groups ?? {};
      yield { file, specifier, typeOnly: type !== undefined };
    }
  }
}

function problem({ file, specifier, typeOnly }: Import): string | undefined {
  if (specifier.startsWith('.')) {
    const target = relative(SRC, resolve(SRC, dirname(file), specifier))
      .split(sep)
      .join('/');
    return ROOTS.has(file) ? undefined : forbidden(file, target);
  }
  const door = DOORS[specifier];
  return door === undefined || typeOnly || door.test(file) ? undefined : 'has another door';
}

const folderOf = (path: string): string => path.split('/')[0] ?? '';

function forbidden(from: string, to: string): string | undefined {
  const [fromFolder, toFolder] = [folderOf(from), folderOf(to)];
  if (CONTRACTS.has(from)) {
    const allowed = CONTRACTS.has(to) || toFolder === 'base';
    return allowed ? undefined : 'a contract imports only base and contracts';
  }
  if (CONTRACTS.has(to)) return undefined;
  if (ROOTS.has(to)) return fromFolder === 'daemon' ? undefined : 'only the programs know it';
  if (to.startsWith('grpc/gen/') && fromFolder !== 'grpc') return 'wire types stay in grpc/';
  if (fromFolder === 'frontend' && toFolder === 'grpc' && !to.startsWith('grpc/proxy/')) {
    return 'the front end is a client';
  }
  if (from.startsWith('grpc/services/') && to.startsWith('grpc/proxy/')) {
    return 'a service is no client';
  }
  const driver = /^snapshotters\/([^/]+)\//.exec(from)?.[1];
  if (driver !== undefined) {
    if (fromFolder !== toFolder) {
      const allowed = toFolder === 'base' || toFolder === 'platform';
      return allowed ? undefined : 'a driver knows directories and mounts, nothing else';
    }
    const own = to.startsWith(`snapshotters/${driver}/`) || SHARED_BY_DRIVERS.has(to);
    return own ? undefined : 'a driver knows no other driver and no tree';
  }
  if (fromFolder === toFolder) return undefined;
  return MAY_IMPORT[fromFolder]?.includes(toFolder) === true
    ? undefined
    : `${fromFolder} may not import ${toFolder}`;
}

/** What drivers use in common; it knows nothing of snapshots. */
const SHARED_BY_DRIVERS: ReadonlySet<string> = new Set([
  'snapshotters/config-table.ts',
  'snapshotters/leftovers.ts',
]);

test('imports follow the map', () => {
  const found = [...imports()];
  expect(found.length).toBeGreaterThan(100);
  const violations = found.flatMap((each) => {
    const reason = problem(each);
    return reason === undefined ? [] : [`${each.file} → ${each.specifier}: ${reason}`];
  });
  expect(violations).toEqual([]);
});

test('every folder is on the map', () => {
  const folders = readdirSync(SRC, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name);
  expect(folders.toSorted()).toEqual(Object.keys(MAY_IMPORT).toSorted());
});

test('contracts exist', () => {
  const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' });
  for (const contract of CONTRACTS) expect(files).toContain(contract.split('/').join(sep));
});
