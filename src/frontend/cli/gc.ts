import type { Command } from 'commander';
import { asking, type Asked } from './address.ts';
import type { Programs } from './programs.ts';

export function addGc(program: Command, programs: Programs): void {
  const gc = program
    .command('gc')
    .description('ask a running ballast about its collection, or have it collect')
    .helpCommand(false);
  asking(gc.command('run'), programs)
    .description('collect what nothing refers to, and say what that came to')
    .addHelpText('after', '\nExample:\n  ballast gc run')
    .action(async (asked: Asked) => {
      const { runGc } = await import('./commands/gc.ts');
      await runGc(asked, programs);
    });
}
