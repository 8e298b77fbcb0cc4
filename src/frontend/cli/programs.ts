import type { Durability } from '../../snapshotters/driver.ts';

/** How `serve` was asked to start: by a config file, or by flags alone. */
export type ServeRequest =
  | { readonly config: string; readonly log: LogFlags }
  | { readonly flags: ServeFlags; readonly log: LogFlags };

export interface LogFlags {
  readonly level: string | undefined;
  readonly format: string | undefined;
}

export interface ServeFlags {
  /** The plugin socket, or else `standalone` is given. */
  readonly socket: string | undefined;
  readonly standalone: string | undefined;
  readonly root: string;
  readonly snapshotter: string | undefined;
  readonly durability: string | undefined;
  readonly containerd: string | undefined;
}

/** What the commands need of a checked config; the daemon's own type has it all. */
export interface CheckedConfig {
  readonly root: string;
  readonly containerdAddress: string | undefined;
  readonly plugin: { readonly socket: string };
  readonly standalone: { readonly socket: string } | undefined;
  readonly snapshotters: ReadonlyMap<string, CheckedSnapshotter>;
}

export interface CheckedSnapshotter {
  readonly name: string;
  readonly driver: string;
  readonly durability: Durability;
  readonly root: string;
  readonly table: Readonly<Record<string, unknown>>;
}

/** What the CLI is given by the composition root: it imports neither the daemon nor a driver. */
export interface Programs {
  readonly version: string;
  /** Names of the drivers in this build. */
  readonly drivers: readonly string[];
  readonly defaultConfigFile: string;
  /** Resolves when the daemon has stopped. */
  readonly serve: (request: ServeRequest) => Promise<void>;
  /** @throws OpError naming file, line, key, value and remedy */
  readonly loadConfig: (file: string) => CheckedConfig;
  /** What containerd's config is to say that a snapshotter can do on this machine. */
  readonly capabilitiesOf: (snapshotter: CheckedSnapshotter) => readonly string[];
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}
