import type { Command } from 'commander';
import { addressing, type Addressed } from './address.ts';
import type { Programs } from './programs.ts';

export interface AsJson extends Addressed {
  readonly json?: boolean;
}

export interface UsageRequest extends AsJson {
  readonly verbose?: boolean;
  readonly bytes?: boolean;
}

/** `du`, `whois` and `where`: who has what on the disk, in all namespaces. */
export function addDisk(program: Command, programs: Programs): void {
  addressing(program.command('du'), programs)
    .description('split what a running ballast has on the disk, by kind and by who keeps it')
    .option('-v, --verbose', 'each image, container, lease and snapshot too')
    .option('--bytes', 'sizes in bytes')
    .option('--json', 'for programs; sizes in bytes')
    .addHelpText(
      'after',
      `
UNIQUE goes with the one that keeps it, SHARED is kept by several.

Examples:
  ballast du
  ballast du -v --address /run/ballast/standalone.sock`,
    )
    .action(async (request: UsageRequest) => {
      const { usage } = await import('./commands/disk.ts');
      await usage(request, programs);
    });
  addressing(program.command('whois'), programs)
    .description('say what a path or an id belongs to: image, layer, container, namespace')
    .argument(
      '<path|id>',
      'a path below a root, written with a "/"; a digest, key, chain ID, diff ID, directory number, name',
    )
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      `
Examples:
  ballast whois /var/lib/ballast/snapshotters/overlayfs/snapshots/12/fs/etc/passwd
  ballast whois ./12/fs
  ballast whois 12`,
    )
    .action(async (what: string, request: AsJson) => {
      const { whoIs } = await import('./commands/disk.ts');
      await whoIs(what, request, programs);
    });
  addressing(program.command('where'), programs)
    .description('say where the files of an image, container, lease, snapshot or blob are')
    .argument('<name>', 'its name, id, key or digest')
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      `
Examples:
  ballast where docker.io/library/debian:12
  ballast where sha256:…`,
    )
    .action(async (name: string, request: AsJson) => {
      const { where } = await import('./commands/disk.ts');
      await where(name, request, programs);
    });
}
