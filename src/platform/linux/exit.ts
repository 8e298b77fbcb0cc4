import { libc } from './ffi.ts';

/**
 * Ends the process in this moment, whatever its threads do. process.exit() ends them first, and one that is
 * just loading its code then ends the process by SIGABRT, which tells a supervisor nothing. exit_group(2).
 */
export function exitAtOnce(status: number): never {
  libc().exit(status);
  throw new Error('the process goes on after its end');
}
