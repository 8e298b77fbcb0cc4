import { TAR_LIMITS } from '../diff/apply/limits.ts';
import { GC_DEFAULTS } from '../gc/scheduler.ts';

export type ConfigKeyType =
  | 'path'
  | 'string'
  | 'one of'
  | 'mode'
  | 'id'
  | 'count'
  | 'part'
  | 'duration'
  | 'table';

/** One key of the config file: what docs/configuration.md lists, what the parser accepts and defaults to. */
export interface ConfigKey {
  /** Dotted; NAME stands for what the operator chooses. */
  readonly key: string;
  readonly type: ConfigKeyType;
  /** As written in the file; undefined: none. A text in parentheses says how it is found. */
  readonly default: string | undefined;
  readonly choices?: readonly string[];
  readonly description: string;
}

export const DEFAULT_CONFIG_FILE = '/etc/ballast/config.toml';

export const DEFAULTS = {
  root: '/var/lib/ballast',
  pluginSocket: '/run/ballast/plugin.sock',
  standaloneSocket: '/run/ballast/standalone.sock',
  pluginMode: 0o660,
  pluginUid: 0,
  pluginGid: 0,
  sharing: 'shared',
  durability: 'full',
  verify: 'foreign',
  logLevel: 'info',
  logFormat: 'auto',
} as const;

export const DURABILITIES = ['full', 'metadata'] as const;
export const SHARINGS = ['shared', 'isolated'] as const;
/** Which blobs are compared with their digests again. */
export const VERIFIED = ['foreign', 'all'] as const;
export type Verified = (typeof VERIFIED)[number];
export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const;
export const LOG_FORMATS = ['auto', 'json', 'journal', 'text'] as const;

export const CONFIG_KEYS: readonly ConfigKey[] = [
  {
    key: 'root',
    type: 'path',
    default: `"${DEFAULTS.root}"`,
    description:
      'The folder that holds everything that is stored: blobs, metadata, and the snapshots of every snapshotter that has no root of its own. One daemon per root.',
  },
  {
    key: 'containerd_address',
    type: 'path',
    default: undefined,
    description:
      "containerd's socket, for `ballast check`, and for layers: Diff writes them to its content store, Apply reads there what ours does not have. The daemon starts whether or not anyone listens there.",
  },
  {
    key: 'plugin',
    type: 'table',
    default: undefined,
    description: "The socket that containerd's `proxy_plugins` connect to.",
  },
  {
    key: 'plugin.socket',
    type: 'path',
    default: `"${DEFAULTS.pluginSocket}"`,
    description:
      'Its path. Under systemd the socket comes from `ballast.socket` instead, whose ListenStream must then be the same.',
  },
  {
    key: 'plugin.mode',
    type: 'mode',
    default: '"0660"',
    description:
      'Its permission bits, in octal. Whoever may connect can read and delete everything that is stored.',
  },
  {
    key: 'plugin.uid',
    type: 'id',
    default: String(DEFAULTS.pluginUid),
    description: 'The user who owns it.',
  },
  {
    key: 'plugin.gid',
    type: 'id',
    default: String(DEFAULTS.pluginGid),
    description: 'The group that owns it.',
  },
  {
    key: 'standalone',
    type: 'table',
    default: undefined,
    description:
      'In the place of `[plugin]`: a socket for clients of containerd, without a containerd (docs/standalone.md). Snapshotters then have the names that those clients ask for, as `overlayfs`.',
  },
  {
    key: 'standalone.socket',
    type: 'path',
    default: `"${DEFAULTS.standaloneSocket}"`,
    description: 'Its path.',
  },
  {
    key: 'standalone.mode',
    type: 'mode',
    default: '"0660"',
    description: 'Its permission bits, in octal.',
  },
  {
    key: 'standalone.uid',
    type: 'id',
    default: String(DEFAULTS.pluginUid),
    description: 'The user who owns it.',
  },
  {
    key: 'standalone.gid',
    type: 'id',
    default: String(DEFAULTS.pluginGid),
    description: 'The group that owns it.',
  },
  {
    key: 'standalone.content_sharing',
    type: 'one of',
    choices: SHARINGS,
    default: `"${DEFAULTS.sharing}"`,
    description:
      '`shared`: a namespace may take up a blob that another one wrote, by its digest alone. `isolated`: it must send the bytes, unless a namespace that has the blob carries the label `containerd.io/namespace.shareable=true`.',
  },
  {
    key: 'snapshotter.NAME',
    type: 'table',
    default: undefined,
    description:
      "One snapshotter; NAME is what containerd's config calls it. With `[plugin]` it can be none of containerd's own names (`overlayfs`, `native`, `btrfs`, …). A driver can have several, each with a root of its own.",
  },
  {
    key: 'snapshotter.NAME.driver',
    type: 'string',
    default: undefined,
    description:
      'How its snapshots are made; `ballast --version` lists the drivers that this build has. It must be given.',
  },
  {
    key: 'snapshotter.NAME.durability',
    type: 'one of',
    choices: DURABILITIES,
    default: `"${DEFAULTS.durability}"`,
    description:
      "`full`: a committed snapshot survives a power cut with every byte of its files. `metadata`: containerd's promise, the snapshot survives and the files that the kernel had not yet written may not.",
  },
  {
    key: 'snapshotter.NAME.root',
    type: 'path',
    default: '(`<root>/snapshotters/NAME`)',
    description:
      'The folder that holds its snapshots. It may lie on another file system; no two snapshotters may share or nest theirs.',
  },
  {
    key: 'gc',
    type: 'table',
    default: undefined,
    description:
      "When a standalone daemon collects what nothing refers to (docs/standalone.md); keys and defaults are those of containerd's `io.containerd.gc.v1.scheduler`.",
  },
  {
    key: 'gc.pause_threshold',
    type: 'part',
    default: String(GC_DEFAULTS.pauseThreshold),
    description:
      'The part of the time, at most 0.5, that runs may take which changes bring about; 0: a second passes between them.',
  },
  {
    key: 'gc.deletion_threshold',
    type: 'count',
    default: String(GC_DEFAULTS.deletionThreshold),
    description:
      'After so many removals a run does not wait for its part of the time; 0: it always does.',
  },
  {
    key: 'gc.mutation_threshold',
    type: 'count',
    default: String(GC_DEFAULTS.mutationThreshold),
    description: 'So many changes bring about a run, as a single removal does; 0: they do not.',
  },
  {
    key: 'gc.schedule_delay',
    type: 'duration',
    default: '"0ms"',
    description: 'How long a run waits at least, also one that a `--sync` waits for.',
  },
  {
    key: 'gc.startup_delay',
    type: 'duration',
    default: '"100ms"',
    description:
      'How long after start-up the first run begins; `"0ms"`: none does then, and what expires is looked for from the first run on.',
  },
  {
    key: 'layers',
    type: 'table',
    default: undefined,
    description:
      'What a layer may ask for when it is unpacked. One that asks for more is refused, and nothing of it stays.',
  },
  {
    key: 'layers.entries_max',
    type: 'count',
    default: String(TAR_LIMITS.entriesMax),
    description: 'Files, directories and other entries.',
  },
  {
    key: 'layers.directories_max',
    type: 'count',
    default: String(TAR_LIMITS.directoriesMax),
    description: 'Directories and whiteouts among them; each takes some 250 bytes of memory.',
  },
  {
    key: 'layers.path_bytes_max',
    type: 'count',
    default: String(TAR_LIMITS.pathBytesMax),
    description:
      "Bytes of a name with its directories, and of a link's target; directories can be half as deep.",
  },
  {
    key: 'layers.file_bytes_max',
    type: 'count',
    default: String(TAR_LIMITS.fileBytesMax),
    description: 'Bytes of one file, holes counted.',
  },
  {
    key: 'layers.plain_bytes_max',
    type: 'count',
    default: String(TAR_LIMITS.plainBytesMax),
    description: 'Bytes of the whole archive when it is inflated.',
  },
  {
    key: 'layers.verify',
    type: 'one of',
    choices: VERIFIED,
    default: `"${DEFAULTS.verify}"`,
    description:
      "Which blobs are compared with their digests when they are unpacked. `foreign`: those that come from containerd's content store; ballast compared its own when they were written. `all`: those too, which takes 6 % more CPU. What comes out is compared in any case with what the image's config says, by whoever unpacks it.",
  },
  {
    key: 'log',
    type: 'table',
    default: undefined,
    description: 'What the daemon writes to its standard error.',
  },
  {
    key: 'log.level',
    type: 'one of',
    choices: LOG_LEVELS,
    default: `"${DEFAULTS.logLevel}"`,
    description:
      '`error`: someone must act. `warn`: may become that. `info`: start, stop and other rare facts. `debug`: each request.',
  },
  {
    key: 'log.format',
    type: 'one of',
    choices: LOG_FORMATS,
    default: `"${DEFAULTS.logFormat}"`,
    description:
      '`json`: one object a line. `journal`: text with the priorities that systemd reads. `text`: for people. `auto`: `journal` under systemd, `text` on a terminal, else `json`.',
  },
];

/** The names of the keys right below `parent` ('' for the top), as the parser accepts them. */
export function keysBelow(parent: string): readonly string[] {
  const prefix = parent === '' ? '' : `${parent}.`;
  const names = new Set<string>();
  for (const { key } of CONFIG_KEYS) {
    if (!key.startsWith(prefix)) continue;
    const [name] = key.slice(prefix.length).split('.');
    if (name !== undefined && name !== '') names.add(name);
  }
  return [...names];
}
