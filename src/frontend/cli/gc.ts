import type { Command } from 'commander';
import { asking, type Asked } from './address.ts';
import type { Programs } from './programs.ts';

/** Of each `gc` command. */
export interface GcAsked extends Asked {
  readonly json?: boolean;
}

export interface PlanAsked extends GcAsked {
  readonly without?: readonly string[];
}

export function addGc(program: Command, programs: Programs): void {
  const gc = program
    .command('gc')
    .description('ask a running ballast what its collection keeps and why, or have it collect')
    .helpCommand(false);
  addWhy(gc, programs);
  addPlan(gc, programs);
  asking(gc.command('run'), programs)
    .description('collect what nothing refers to, and say what that came to')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  ballast gc run')
    .action(async (asked: GcAsked) => {
      const { runGc } = await import('./commands/gc.ts');
      await runGc(asked, programs);
    });
}

function addWhy(gc: Command, programs: Programs): void {
  asking(gc.command('why'), programs)
    .description('print the shortest chain of references from each kind of root that keeps a thing')
    .argument(
      '<name>',
      "a digest or the beginning of one, a snapshot's key, an ingest's ref, an image's name, an id",
    )
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      `
Examples:
  ballast gc why sha256:4f53cda18c2b
  ballast gc why -n k8s.io registry.k8s.io/pause:3.10`,
    )
    .action(async (name: string, asked: GcAsked) => {
      const { whyGc } = await import('./commands/gc.ts');
      await whyGc(name, asked, programs);
    });
}

function addPlan(gc: Command, programs: Programs): void {
  asking(gc.command('plan'), programs)
    .description('print what a collection would remove now, without removing it')
    .option(
      '--without <name>',
      'as if this image or lease were removed first; may be given again',
      (name: string, others: readonly string[] | undefined) => [...(others ?? []), name],
    )
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      `
Examples:
  ballast gc plan
  ballast gc plan --without docker.io/library/busybox:latest`,
    )
    .action(async (asked: PlanAsked) => {
      const { planGc } = await import('./commands/gc.ts');
      await planGc(asked, programs);
    });
}
