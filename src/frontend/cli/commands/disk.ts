import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import prettyBytes from 'pretty-bytes';
import type { DiskUsage, Identity, Part, Place, Question } from '../../../disk/disk.ts';
import type { Node } from '../../../gc/collectible.ts';
import { DiskProxy } from '../../../grpc/proxy/disk.ts';
import { ask } from '../ask.ts';
import type { AsJson, UsageRequest } from '../disk.ts';
import type { Programs } from '../programs.ts';
import { lines, table, type Column } from '../render/table.ts';

/** @throws OpError as `ask` */
export async function usage(request: UsageRequest, programs: Programs): Promise<void> {
  const verbose = request.verbose === true;
  const found = await ask(request, programs, (calls, ctx) =>
    new DiskProxy(calls).usage(ctx, { verbose }),
  );
  if (request.json === true) return print(found, programs);
  const size = request.bytes === true ? String : readable;
  programs.out(summary(found, size));
  if (found.namesUnknown !== '') programs.out(`\nwho keeps what: ${found.namesUnknown}\n`);
  if (verbose) programs.out(details(found, size));
}

/** @throws OpError as `ask`; NotFound */
export async function whoIs(what: string, request: AsJson, programs: Programs): Promise<void> {
  const question = questionOf(what);
  const found = await ask(request, programs, (calls, ctx) =>
    new DiskProxy(calls).whoIs(ctx, question),
  );
  if (request.json === true) return print(found, programs);
  programs.out(found.map((identity) => paragraph(factsOf(identity))).join('\n'));
}

/** @throws OpError as `ask`; NotFound */
export async function where(name: string, request: AsJson, programs: Programs): Promise<void> {
  const found = await ask(request, programs, (calls, ctx) => new DiskProxy(calls).where(ctx, name));
  if (request.json === true) return print(found, programs);
  programs.out(found.map((place) => paragraph(factsOfPlace(place))).join('\n'));
}

const print = (found: unknown, programs: Programs): void =>
  programs.out(`${JSON.stringify(found, undefined, 2)}\n`);

const readable = (bytes: number): string => prettyBytes(bytes, { binary: true });

type Size = (bytes: number) => string;

const right = (heading: string): Column => ({ heading, right: true });
const left = (heading: string): Column => ({ heading });

/** Of no one owner. */
const OVERHEAD: ReadonlySet<string> = new Set(['metadata', 'trash', 'folders']);

function summary({ parts, total, namesUnknown }: DiskUsage, size: Size): string {
  const row = (part: Part): readonly string[] => {
    const { type, count, bytes, unique, shared, unreferenced } = part;
    if (OVERHEAD.has(type)) return [type, '', size(bytes)];
    const kept = namesUnknown === '' ? [unique, shared, unreferenced].map(size) : [];
    return [type, String(count), size(bytes), ...kept];
  };
  const columns = [
    left('TYPE'),
    ...['COUNT', 'SIZE', 'UNIQUE', 'SHARED', 'UNREFERENCED'].map(right),
  ];
  return table(columns, [...parts.map(row), ['total', '', size(total)]]);
}

function details({ owners, snapshots }: DiskUsage, size: Size): string {
  const owned = ['images', 'containers', 'leases'].map((type) => {
    const rows = owners
      .filter((owner) => owner.type === type)
      .map(({ namespace, key, unique, shared }) => [
        namespace,
        key,
        ...[unique, shared, unique + shared].map(size),
      ]);
    const columns = ['NAMESPACE', 'NAME'].map(left);
    return section(type, [...columns, ...['UNIQUE', 'SHARED', 'SIZE'].map(right)], rows);
  });
  const rows = snapshots.map(({ type, namespace, key, id, kind, bytes, keepers }) => [
    type.slice('snapshots/'.length),
    namespace,
    key,
    id,
    kind,
    KEEPERS[keepers],
    size(bytes),
  ]);
  const columns = ['SNAPSHOTTER', 'NAMESPACE', 'KEY', 'ID', 'KIND', 'KEPT BY'].map(left);
  return [...owned, section('snapshots', [...columns, right('SIZE')], rows)].join('');
}

const KEEPERS = { 0: 'none', 1: 'one', 2: 'several' } as const;

const section = (
  title: string,
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): string => (rows.length === 0 ? '' : `\n${title}\n${table(columns, rows)}`);

/** What is written with a slash and is there, or begins as a path does, is one; names of images have slashes too. */
function questionOf(what: string): Question {
  const lexical = resolve(what);
  const isPath = /^[./]/.test(what) || (what.includes('/') && real(lexical) !== undefined);
  if (!isPath) return { id: what };
  // Links above it may lead to the root, links in a snapshot lead out of it.
  const parent = real(dirname(lexical));
  const ways = [lexical, parent && join(parent, basename(lexical)), real(lexical)];
  return { paths: [...new Set(ways.filter((way) => way !== undefined))] };
}

function real(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

type Fact = readonly [name: string, value: string];

/** One a line; those without a value are left out. */
const paragraph = (facts: readonly Fact[]): string =>
  lines(facts.filter(([, value]) => value !== ''));

function factsOf(identity: Identity): readonly Fact[] {
  const { type, namespaces, key, id, kind, parent, diffId, layer, keptBy } = identity;
  return [
    ['type', type],
    ['namespaces', namespaces.join(', ')],
    [KEY_NAMES[type] ?? 'key', key],
    ['id', id],
    ['kind', kind],
    ['parent', parent],
    ['layer', layer],
    ['diff ID', diffId],
    ...keptBy.map((node): Fact => ['kept by', nameOf(node)]),
  ];
}

function factsOfPlace({ type, namespaces, key, path, tree, work, lowers }: Place): readonly Fact[] {
  return [
    ['type', type],
    ['namespaces', namespaces.join(', ')],
    [KEY_NAMES[type] ?? 'key', key],
    ['path', path],
    ['tree', tree],
    ['work', work],
    ...lowers.map((lower): Fact => ['lower', lower]),
  ];
}

const KEY_NAMES: Readonly<Record<string, string>> = {
  content: 'digest',
  ingests: 'ref',
  images: 'name',
};

const nameOf = ({ type, namespace, key }: Node): string => `${type} ${namespace} ${key}`;
