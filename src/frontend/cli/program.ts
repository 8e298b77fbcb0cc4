import { Command, CommanderError, Option } from 'commander';

import { isOpError, messageOf, OpError } from '../../base/errors.ts';
import type { Durability } from '../../snapshotters/driver.ts';

/** How `serve` was asked to start: by a config file, or by flags alone. The latter wins over nothing. */
export type ServeRequest =
  | { readonly config: string; readonly log: LogFlags }
  | { readonly flags: ServeFlags; readonly log: LogFlags };

export interface LogFlags {
  readonly level: string | undefined;
  readonly format: string | undefined;
}

export interface ServeFlags {
  readonly socket: string;
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
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

/**
 * Runs the command that `argv` (without node and script) names; resolves with the exit code: 0, 1 when
 * it failed or found a fault, 2 when the command line makes no sense. Writes through `programs` only.
 */
export async function run(argv: readonly string[], programs: Programs): Promise<number> {
  const program = buildProgram(programs);
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (!isOpError(error)) throw error;
    programs.err(`ballast: ${messageOf(error)}\n`);
    return 1;
  }
}

/** The whole command line. A command that found a fault throws an OpError. */
export function buildProgram(programs: Programs): Command {
  const program = new Command('ballast')
    .description("containerd's content store and snapshotters as one daemon")
    .version(versionText(programs), '-V, --version', 'print the version, Node and the drivers')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    // So that `config print --version 2.x` is not the program's own --version.
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ writeOut: programs.out, writeErr: programs.err });
  addServe(program, programs);
  addConfig(program, programs);
  return program.addHelpText(
    'after',
    `
Examples:
  ballast serve                                     the daemon, by ${programs.defaultConfigFile}
  ballast serve --socket /tmp/b.sock --root /tmp/b  a first try, without a config
  ballast config print containerd --version 2.x     what to put into containerd's config
  ballast check --containerd /run/containerd/containerd.sock`,
  );
}

const versionText = ({ version, drivers }: Programs): string =>
  `ballast ${version} (node ${process.version}, drivers ${drivers.join(', ')})`;

function addServe(program: Command, programs: Programs): void {
  program
    .command('serve')
    .description("run the daemon: containerd's plugin socket")
    .option('--config <file>', `the config file (default: ${programs.defaultConfigFile})`)
    .option('--socket <path>', 'without a config file: the socket to serve on')
    .option('--root <dir>', 'without a config file: the folder that holds everything')
    .option('--snapshotter <name>', 'without a config file: overlayfs (default), native or btrfs')
    .addOption(
      new Option('--durability <how>', 'without a config file: what a Commit promises').choices([
        'full',
        'metadata',
      ]),
    )
    .option('--containerd <socket>', "without a config file: containerd's socket")
    .option('--log-level <level>', 'error, warn, info or debug')
    .option('--log-format <format>', 'auto, json, journal or text')
    .addHelpText(
      'after',
      `
By flags alone, the one snapshotter answers whatever name a request carries.

Examples:
  ballast serve
  ballast serve --config ./ballast.toml --log-format text
  ballast serve --socket /tmp/b.sock --root /tmp/b --snapshotter native`,
    )
    .action((options: ServeCommandOptions) =>
      programs.serve(serveRequest(options, programs.defaultConfigFile)),
    );
}

interface ServeCommandOptions extends Partial<ServeFlags> {
  readonly config?: string;
  readonly logLevel?: string;
  readonly logFormat?: string;
}

function serveRequest(options: ServeCommandOptions, defaultConfigFile: string): ServeRequest {
  const log = { level: options.logLevel, format: options.logFormat };
  const { socket, root, snapshotter, durability, containerd } = options;
  const given = [socket, root, snapshotter, durability, containerd].some(
    (value) => value !== undefined,
  );
  if (!given) return { config: options.config ?? defaultConfigFile, log };
  if (options.config !== undefined) {
    throw new OpError(
      'InvalidArgument',
      'serve: --config says all that --socket, --root, --snapshotter, --durability and --containerd say; give one or the other',
    );
  }
  if (socket === undefined || root === undefined) {
    throw new OpError(
      'InvalidArgument',
      'serve: without a config file it needs both --socket PATH and --root DIR',
    );
  }
  return { flags: { socket, root, snapshotter, durability, containerd }, log };
}

function addConfig(program: Command, programs: Programs): void {
  const config = program.command('config').description('check and print configs');
  config
    .command('check')
    .description('check a config file; nothing on the machine is looked at')
    .argument('[file]', 'the config file', programs.defaultConfigFile)
    .addHelpText('after', '\nExample:\n  ballast config check /etc/ballast/config.toml')
    .action((file: string) => {
      const { snapshotters } = programs.loadConfig(file);
      const names = [...snapshotters.keys()].join(', ');
      programs.out(`${file}: fine, ${names === '' ? 'content only' : `snapshotters ${names}`}\n`);
    });
}
