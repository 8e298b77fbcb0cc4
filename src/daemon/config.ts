import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';

import { parse, TomlError } from 'smol-toml';

import { messageOf, OpError, quote } from '../base/errors.ts';
import type { LogLevel } from '../base/log.ts';
import type { Sharing } from '../content/namespaced-store.ts';
import { TAR_LIMITS, type TarLimits } from '../diff/apply/limits.ts';
import { GC_DEFAULTS, type GcConfig } from '../gc/scheduler.ts';
import type { ConfigTable, DriverFactory, Durability } from '../snapshotters/driver.ts';
import {
  DEFAULTS,
  DURABILITIES,
  keysBelow,
  LOG_FORMATS,
  LOG_LEVELS,
  SHARINGS,
  VERIFIED,
  type Verified,
} from './config-keys.ts';
import { ConfigSection, type NameOfValue, nearest } from './config-section.ts';
import { TomlLines } from './toml-lines.ts';

export type LogFormat = (typeof LOG_FORMATS)[number];

export interface LogConfig {
  readonly level: LogLevel;
  readonly format: LogFormat;
}

/** A socket, and what it looks like in the file system. */
interface SocketConfig {
  readonly socket: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

export interface StandaloneConfig extends SocketConfig {
  readonly sharing: Sharing;
}

export interface SnapshotterConfig {
  /** What containerd's config, or a client of the standalone socket, calls it. */
  readonly name: string;
  readonly driver: string;
  readonly durability: Durability;
  readonly root: string;
  /** The driver's own keys; its checkConfig has accepted them. */
  readonly table: ConfigTable;
}

export interface LayersConfig {
  readonly limits: TarLimits;
  /** Which blobs are compared with their digests when they are unpacked. */
  readonly verify: Verified;
}

/** All that a daemon is told when it starts; checked, defaults filled in. */
export interface DaemonConfig {
  readonly root: string;
  readonly containerdAddress: string | undefined;
  /** For containerd's proxy_plugins; not served where there is a standalone socket. */
  readonly plugin: SocketConfig;
  /** For clients of containerd, without a containerd: then it owns the root alone. */
  readonly standalone: StandaloneConfig | undefined;
  /** For a standalone socket. */
  readonly gc: GcConfig;
  readonly layers: LayersConfig;
  readonly snapshotters: ReadonlyMap<string, SnapshotterConfig>;
  /** The only snapshotter answers whatever name a request carries: a start by flags, without a file. */
  readonly anyName: boolean;
  /** Without a file: the one snapshotter must work. */
  readonly byFlags: boolean;
  readonly log: LogConfig;
}

export interface LogFlags {
  readonly level: string | undefined;
  readonly format: string | undefined;
}

export interface ServeFlags {
  /** The plugin socket, or else `standalone` is given. */
  readonly socket?: string | undefined;
  readonly standalone?: string | undefined;
  readonly root: string;
  readonly snapshotter?: string | undefined;
  readonly durability?: string | undefined;
  readonly containerd?: string | undefined;
}

/** How `serve` was asked to start; the flags about logs win over a file. */
export type ServeRequest =
  | { readonly config: string; readonly log: LogFlags }
  | { readonly flags: ServeFlags; readonly log: LogFlags };

/** Ids of containerd's own plugins: it refuses to start when a proxy plugin repeats one. */
const BUILT_IN_NAMES: ReadonlySet<string> = new Set(
  'aufs blockfile btrfs cimfs devmapper erofs native overlayfs windows windows-lcow zfs content walking'.split(
    ' ',
  ),
);
/** What `config print --content` calls our content store: one table holds all proxy plugins. */
const CONTENT_PLUGIN_NAME = 'ballast-content';

const SNAPSHOTTER_KEYS = ['driver', 'durability', 'root'];

/** @throws OpError as loadConfig and configFromFlags */
export function configFor(request: ServeRequest, drivers: readonly DriverFactory[]): DaemonConfig {
  const config =
    'config' in request
      ? loadConfig(request.config, drivers)
      : configFromFlags(request.flags, drivers);
  const flags = new ConfigSection(flagOf, ['log'], request.log);
  return { ...config, log: logOf(flags, config.log) };
}

const logOf = (section: ConfigSection, preset: LogConfig): LogConfig => ({
  level: section.choice('level', LOG_LEVELS, preset.level),
  format: section.choice('format', LOG_FORMATS, preset.format),
});

/**
 * Reads and checks a config file.
 * @throws OpError NotFound when there is none; InvalidArgument naming file, line, key, value and remedy
 */
export function loadConfig(file: string, drivers: readonly DriverFactory[]): DaemonConfig {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new OpError(
      'NotFound',
      `${file}: cannot read the config (${messageOf(error)}); name one with --config FILE, or start with --socket PATH --root DIR`,
      { cause: error },
    );
  }
  return parseConfig(text, file, drivers);
}

/** As loadConfig, for a text that is already read; `file` is for messages only. */
export function parseConfig(
  text: string,
  file: string,
  drivers: readonly DriverFactory[],
): DaemonConfig {
  const lines = new TomlLines(text);
  const nameOf: NameOfValue = (path) => `${file}:${lines.lineOf(path)}: ${path.join('.')}`;
  return check(new ConfigSection(nameOf, [], parseToml(text, file)), drivers);
}

/**
 * The config of `serve --socket PATH --root DIR`: content and one driver for every name; and of
 * `serve --standalone PATH --root DIR`, where the driver has the name that containerd's own has.
 * @throws OpError InvalidArgument naming the flag
 */
export function configFromFlags(
  flags: ServeFlags,
  drivers: readonly DriverFactory[],
): DaemonConfig {
  const asked = flags.snapshotter ?? 'overlayfs';
  const driver = asked === 'overlayfs' ? 'overlay' : asked;
  const { socket, standalone } = flags;
  const owner = { uid: process.getuid?.(), gid: process.getgid?.() };
  // The name that the default config gives it: what was stored is found when a file takes over.
  const own = driver === 'overlay' ? 'overlayfs' : driver;
  const name = standalone === undefined ? `ballast-${driver}` : own;
  const table = {
    root: resolve(flags.root),
    containerd_address: flags.containerd === undefined ? undefined : resolve(flags.containerd),
    plugin: socket === undefined ? undefined : { socket: resolve(socket), ...owner },
    standalone: standalone === undefined ? undefined : { socket: resolve(standalone), ...owner },
    snapshotter: { [name]: { driver, durability: flags.durability } },
  };
  const config = check(new ConfigSection(flagOf, [], table), drivers);
  return { ...config, anyName: standalone === undefined, byFlags: true };
}

/** The flag that a value of configFromFlags' table came from. */
const flagOf: NameOfValue = (path) => {
  const flag = FLAGS.get(path.at(-1) ?? '');
  return flag ?? '--snapshotter';
};
const FLAGS: ReadonlyMap<string, string> = new Map([
  ['root', '--root'],
  ['containerd_address', '--containerd'],
  ['socket', '--socket'],
  ['level', '--log-level'],
  ['format', '--log-format'],
  ['durability', '--durability'],
]);

function check(top: ConfigSection, drivers: readonly DriverFactory[]): DaemonConfig {
  top.refuseUnknown(keysBelow(''));
  const root = top.directory('root', DEFAULTS.root);
  const plugin = top.section('plugin');
  plugin.refuseUnknown(keysBelow('plugin'));
  const log = top.section('log');
  log.refuseUnknown(keysBelow('log'));
  const standalone = standaloneOf(top);
  return {
    root,
    containerdAddress: top.socket('containerd_address'),
    plugin: {
      socket: plugin.socket('socket') ?? DEFAULTS.pluginSocket,
      mode: plugin.mode('mode', DEFAULTS.pluginMode),
      uid: plugin.id('uid', DEFAULTS.pluginUid),
      gid: plugin.id('gid', DEFAULTS.pluginGid),
    },
    standalone,
    gc: gcOf(top, standalone !== undefined),
    layers: layersOf(top.section('layers')),
    snapshotters: snapshottersOf(top.section('snapshotter'), root, {
      drivers,
      namesOfContainerd: standalone !== undefined,
    }),
    anyName: false,
    byFlags: false,
    log: logOf(log, { level: DEFAULTS.logLevel, format: DEFAULTS.logFormat }),
  };
}

/** Two owners of one store would collect each other's data: one root has one kind of socket. */
function standaloneOf(top: ConfigSection): StandaloneConfig | undefined {
  if (!top.keys().includes('standalone')) return undefined;
  if (top.keys().includes('plugin')) {
    throw top.fail(
      'standalone',
      'cannot share its stores with a plugin socket: leave [plugin] out, or give each a daemon and a root of its own',
    );
  }
  if (top.keys().includes('containerd_address')) {
    throw top.fail(
      'containerd_address',
      'is for a plugin socket: a standalone one needs no containerd',
    );
  }
  const section = top.section('standalone');
  section.refuseUnknown(keysBelow('standalone'));
  return {
    socket: section.socket('socket') ?? DEFAULTS.standaloneSocket,
    mode: section.mode('mode', DEFAULTS.pluginMode),
    uid: section.id('uid', DEFAULTS.pluginUid),
    gid: section.id('gid', DEFAULTS.pluginGid),
    sharing: section.choice('content_sharing', SHARINGS, DEFAULTS.sharing),
  };
}

/** Behind a plugin socket containerd collects. */
function gcOf(top: ConfigSection, isStandalone: boolean): GcConfig {
  if (!isStandalone && top.keys().includes('gc')) {
    throw top.fail('gc', 'is for a standalone socket: behind a plugin socket containerd collects');
  }
  const section = top.section('gc');
  section.refuseUnknown(keysBelow('gc'));
  return {
    pauseThreshold: section.part('pause_threshold', GC_DEFAULTS.pauseThreshold),
    deletionThreshold: section.count('deletion_threshold', GC_DEFAULTS.deletionThreshold, 0),
    mutationThreshold: section.count('mutation_threshold', GC_DEFAULTS.mutationThreshold, 0),
    scheduleDelayMs: section.duration('schedule_delay', GC_DEFAULTS.scheduleDelayMs),
    startupDelayMs: section.duration('startup_delay', GC_DEFAULTS.startupDelayMs),
  };
}

function layersOf(section: ConfigSection): LayersConfig {
  section.refuseUnknown(keysBelow('layers'));
  const limits = {
    ...TAR_LIMITS,
    entriesMax: section.count('entries_max', TAR_LIMITS.entriesMax),
    directoriesMax: section.count('directories_max', TAR_LIMITS.directoriesMax),
    pathBytesMax: section.count('path_bytes_max', TAR_LIMITS.pathBytesMax),
    fileBytesMax: section.count('file_bytes_max', TAR_LIMITS.fileBytesMax),
    plainBytesMax: section.count('plain_bytes_max', TAR_LIMITS.plainBytesMax),
  };
  return { limits, verify: section.choice('verify', VERIFIED, DEFAULTS.verify) };
}

function parseToml(text: string, file: string): object {
  try {
    return parse(text, { integersAsBigInt: 'asNeeded' });
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [problem = ''] = error.message.replace(/^Invalid TOML document: /, '').split('\n');
    throw new OpError(
      'InvalidArgument',
      `${file}:${error.line}:${error.column}: this is no TOML: ${problem}`,
      { cause: error },
    );
  }
}

function snapshottersOf(
  all: ConfigSection,
  root: string,
  { drivers, namesOfContainerd }: { drivers: readonly DriverFactory[]; namesOfContainerd: boolean },
): ReadonlyMap<string, SnapshotterConfig> {
  const made = new Map<string, SnapshotterConfig>();
  for (const name of all.keys()) {
    const section = all.section(name);
    const driver = driverOf(section, drivers);
    if (!namesOfContainerd) refuseContainerdsName(all, name);
    checkName(all, name);
    const snapshotter = snapshotterOf(section, name, root, driver);
    checkRoot(section, snapshotter, root, made);
    made.set(name, snapshotter);
  }
  return made;
}

function refuseContainerdsName(all: ConfigSection, name: string): void {
  if (BUILT_IN_NAMES.has(name)) {
    throw all.fail(
      name,
      `has the name of a plugin of containerd's own, which then does not start; choose another such as "ballast-${name}"`,
    );
  }
  if (name === CONTENT_PLUGIN_NAME) {
    throw all.fail(
      name,
      'has the name that our content store carries in containerd; choose another',
    );
  }
}

function checkName(all: ConfigSection, name: string): void {
  if (!/^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/.test(name) || name.length > 76) {
    throw all.fail(
      name,
      `is a name that containerd refuses: use letters, digits, and single ".", "_" or "-" between them, at most 76 characters`,
    );
  }
}

function driverOf(section: ConfigSection, drivers: readonly DriverFactory[]): DriverFactory {
  const names = drivers.map((driver) => driver.name);
  const name = section.string('driver');
  if (name === undefined) {
    throw section.fail(undefined, `names no driver: add driver = "…", one of ${names.join(', ')}`);
  }
  const driver = drivers.find((one) => one.name === name);
  if (driver !== undefined) return driver;
  const guess = name === 'overlayfs' ? 'overlay' : nearest(name, names);
  const hint = guess === undefined ? '' : `; did you mean ${guess}?`;
  throw section.fail('driver', `is ${quote(name)}, this build has ${names.join(', ')}${hint}`);
}

function snapshotterOf(
  section: ConfigSection,
  name: string,
  root: string,
  driver: DriverFactory,
): SnapshotterConfig {
  const table = section.without(SNAPSHOTTER_KEYS);
  checkTable(section, driver, table);
  return {
    name,
    driver: driver.name,
    durability: section.choice('durability', DURABILITIES, DEFAULTS.durability),
    root: section.directory('root', `${root}/snapshotters/${name}`),
    table,
  };
}

/** The driver knows its keys, we know their lines. */
function checkTable(section: ConfigSection, driver: DriverFactory, table: ConfigTable): void {
  try {
    driver.checkConfig(table);
  } catch (error) {
    const message = messageOf(error);
    const named = Object.keys(table).find((key) => message.includes(key));
    throw section.fail(named, `is refused by its driver: ${message}`, error);
  }
}

function checkRoot(
  section: ConfigSection,
  { root: own }: SnapshotterConfig,
  root: string,
  others: ReadonlyMap<string, SnapshotterConfig>,
): void {
  const inRoot = isWithin(own, root);
  if (isWithin(root, own) || (inRoot && !isWithin(own, `${root}/snapshotters`))) {
    throw section.fail(
      'root',
      `is ${quote(own)}, among the daemon's own files in ${quote(root)}; leave it out or choose a folder outside of that`,
    );
  }
  if (own === `${root}/snapshotters`) {
    throw section.fail(
      'root',
      `is ${quote(own)}, where others have theirs; choose a folder below it`,
    );
  }
  for (const other of others.values()) {
    if (isWithin(own, other.root) || isWithin(other.root, own)) {
      throw section.fail(
        'root',
        `is ${quote(own)}, which shares files with snapshotter.${other.name} in ${quote(other.root)}; give each a folder of its own`,
      );
    }
  }
}

/** Whether `path` is `folder` or below it; both are absolute and normal. */
const isWithin = (path: string, folder: string): boolean =>
  path === folder || path.startsWith(`${folder}/`);
