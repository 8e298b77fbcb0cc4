import { Argument, Command, CommanderError, Option } from 'commander';

import { isOpError, messageOf, OpError } from '../../base/errors.ts';
import type { CheckRequest } from './commands/check.ts';
import { addGc } from './gc.ts';
import type { Programs, ServeFlags, ServeRequest } from './programs.ts';
import { CONTAINERD_VERSIONS, type ContainerdVersion } from './render/containerd-config.ts';

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
function buildProgram(programs: Programs): Command {
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
  addCheck(program, programs);
  addGc(program, programs);
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
    .description(
      "run the daemon: containerd's plugin socket, or one for clients without a containerd",
    )
    .option('--config <file>', `the config file (default: ${programs.defaultConfigFile})`)
    .option('--socket <path>', 'without a config file: the socket to serve on')
    .option(
      '--standalone <path>',
      'without a config file, in the place of --socket: the socket for clients of containerd',
    )
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
By flags alone, the one snapshotter answers whatever name a request to --socket carries.

Examples:
  ballast serve
  ballast serve --config ./ballast.toml --log-format text
  ballast serve --socket /tmp/b.sock --root /tmp/b --snapshotter native
  ballast serve --standalone /tmp/b.sock --root /tmp/b    then: ctr --address /tmp/b.sock …`,
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
  const { socket, standalone, root, snapshotter, durability, containerd } = options;
  const given = [socket, standalone, root, snapshotter, durability, containerd].some(
    (value) => value !== undefined,
  );
  if (!given) return { config: options.config ?? defaultConfigFile, log };
  if (options.config !== undefined) {
    throw new OpError(
      'InvalidArgument',
      'serve: --config says all that --socket, --standalone, --root, --snapshotter, --durability and --containerd say; give one or the other',
    );
  }
  if ((socket === undefined) === (standalone === undefined) || root === undefined) {
    throw new OpError(
      'InvalidArgument',
      'serve: without a config file it needs --root DIR, and --socket PATH or --standalone PATH',
    );
  }
  return { flags: { socket, standalone, root, snapshotter, durability, containerd }, log };
}

function addConfig(program: Command, programs: Programs): void {
  const config = program
    .command('config')
    .description('check a config, and print what others need to know of it')
    .helpCommand(false);
  addConfigCheck(config, programs);
  addConfigRoots(config, programs);
  addConfigPrint(config, programs);
}

function addConfigCheck(config: Command, programs: Programs): void {
  config
    .command('check')
    .description('check a config file; nothing else on the machine is looked at')
    .argument('[file]', 'the config file', programs.defaultConfigFile)
    .addHelpText('after', '\nExample:\n  ballast config check ./ballast.toml')
    .action((file: string) => {
      const { snapshotters } = programs.loadConfig(file);
      const names = [...snapshotters.keys()].join(', ');
      programs.out(`${file}: fine, ${names === '' ? 'content only' : `snapshotters ${names}`}\n`);
    });
}

function addConfigRoots(config: Command, programs: Programs): void {
  config
    .command('roots')
    .description('print the folders that hold data, one a line: what a backup needs')
    .argument('[file]', 'the config file', programs.defaultConfigFile)
    .addHelpText('after', '\nExample:\n  ballast config roots')
    .action((file: string) => {
      const { root, snapshotters } = programs.loadConfig(file);
      const others = [...snapshotters.values()].map((snapshotter) => snapshotter.root);
      const outside = others.filter((other) => !other.startsWith(`${root}/`));
      programs.out(`${[root, ...outside].join('\n')}\n`);
    });
}

interface ConfigPrintOptions {
  readonly version?: ContainerdVersion;
  readonly content?: boolean;
  readonly differ?: boolean;
  readonly config: string;
}

function addConfigPrint(config: Command, programs: Programs): void {
  config
    .command('print')
    .description('print what containerd, docker or k3s needs in its config')
    .addArgument(new Argument('<for>', 'whose config').choices(['containerd', 'docker', 'k3s']))
    .addOption(new Option('--version <version>', 'of containerd').choices([...CONTAINERD_VERSIONS]))
    .option('--content', "our content store too, in the place of containerd's own")
    .option('--differ', "our layer engine too, before containerd's own (from 1.7 on)")
    .option('--config <file>', "ballast's config file", programs.defaultConfigFile)
    .addHelpText(
      'after',
      `
Examples:
  ballast config print containerd --version 1.7 > /etc/containerd/conf.d/ballast.toml
  ballast config print containerd --version 2.x --content --differ
  ballast config print docker
  ballast config print k3s --version 2.x`,
    )
    .action(async (target: string, options: ConfigPrintOptions) => {
      const { printConfig } = await import('./commands/config-print.ts');
      const { content = false, differ = false } = options;
      printConfig({ ...options, target, content, differ }, programs);
    });
}

function addCheck(program: Command, programs: Programs): void {
  program
    .command('check')
    .description('say whether a running containerd uses ballast, and knows what ballast lacks')
    .option('--containerd <socket>', "containerd's socket (default: containerd_address)")
    .option('--address <socket>', "ballast's plugin socket (default: plugin.socket)")
    .option('--config <file>', `ballast's config file (default: ${programs.defaultConfigFile})`)
    .addHelpText(
      'after',
      `
Ends with 1 when something is wrong.

Examples:
  ballast check
  ballast check --containerd /run/k3s/containerd/containerd.sock
  ballast check --containerd /tmp/c.sock --address /tmp/b.sock`,
    )
    .action(async (options: CheckRequest) => {
      const { check } = await import('./commands/check.ts');
      await check(options, programs);
    });
}
