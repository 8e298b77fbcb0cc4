import { execFile, spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';

/** Runs a program to its end. @throws Error with its output when it fails or is missing */
export function run(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      if (error)
        reject(new Error(`${program} ${args.join(' ')}: ${stderr.trim() || error.message}`));
      else resolve(stdout);
    });
  });
}

/** Spawns a program that dies with this process, should a test not come to ending it. */
export const spawnTied = (
  program: string,
  args: readonly string[],
  options: SpawnOptions,
): ChildProcess =>
  spawn('/usr/bin/setpriv', ['--pdeathsig', 'KILL', '--', program, ...args], options);
