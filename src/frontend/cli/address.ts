import { type Command, Option } from 'commander';
import type { Programs } from './programs.ts';

/** Which daemon a command asks. */
export interface Addressed {
  readonly address?: string;
  readonly config?: string;
}

/** The same, and in which namespace. */
export interface Asked extends Addressed {
  readonly namespace: string;
}

/** The options of a command that asks a running daemon; its action hands them to `ask` (ask.ts). */
export const addressing = (command: Command, { defaultConfigFile }: Programs): Command =>
  command
    .addOption(
      new Option(
        '--address <socket>',
        "ballast's socket, of either kind (default: by its config)",
      ).env('BALLAST_ADDRESS'),
    )
    .option('--config <file>', `ballast's config file (default: ${defaultConfigFile})`);

/** The same, of one that asks within a namespace. */
export const asking = (command: Command, programs: Programs): Command =>
  addressing(command, programs).addOption(
    new Option('-n, --namespace <name>', 'as containerd has them')
      .env('CONTAINERD_NAMESPACE')
      .default('default'),
  );
