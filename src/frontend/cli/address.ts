import { type Command, Option } from 'commander';
import type { Programs } from './programs.ts';

/** Which daemon a command asks, and in which namespace. */
export interface Asked {
  readonly address?: string;
  readonly config?: string;
  readonly namespace: string;
}

/** The options of a command that asks a running daemon; its action hands them to `ask` (ask.ts). */
export const asking = (command: Command, { defaultConfigFile }: Programs): Command =>
  command
    .addOption(
      new Option(
        '--address <socket>',
        "ballast's socket, of either kind (default: by its config)",
      ).env('BALLAST_ADDRESS'),
    )
    .addOption(
      new Option('-n, --namespace <name>', 'as containerd has them')
        .env('CONTAINERD_NAMESPACE')
        .default('default'),
    )
    .option('--config <file>', `ballast's config file (default: ${defaultConfigFile})`);
