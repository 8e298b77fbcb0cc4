import { execFile, spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { once } from 'node:events';

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** How long anything may take that takes a second on an idle machine. */
export const PATIENCE_MS = 60_000;

/** A program that runs beside the test; what it writes to stdout and stderr is kept as one text. */
export class Program {
  readonly pid: number;
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  readonly #name: string;
  #output = '';

  constructor(file: string, args: readonly string[], options: SpawnOptions = {}) {
    this.#name = [file, ...args].join(' ');
    this.#child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    this.pid = this.#child.pid ?? 0;
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#output += text;
      });
    }
    this.exited = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      this.#child.once('exit', (code, signal) => resolve({ code, signal }));
    });
    // Whoever waits for the end sees the error; nobody has to wait.
    this.exited.catch(() => {});
  }

  get output(): string {
    return this.#output;
  }

  /** Resolves when the output matches. @throws Error with the output when the program ends first */
  async says(pattern: RegExp): Promise<void> {
    const patience = AbortSignal.timeout(PATIENCE_MS);
    const ended = this.exited.then((exit) => {
      throw new Error(`${this.#name} ended (${exit.code ?? exit.signal}): ${this.#output}`);
    });
    ended.catch(() => {});
    while (!pattern.test(this.#output)) {
      if (patience.aborted) throw new Error(`${this.#name} never said ${pattern}: ${this.#output}`);
      const more = [this.#child.stdout, this.#child.stderr].flatMap((stream) =>
        stream === null ? [] : [once(stream, 'data', { signal: patience }).catch(() => {})],
      );
      await Promise.race([...more, ended]);
    }
  }

  /** Sends the signal and resolves when the program is gone; one that is gone already is left alone. */
  async stop(signal: NodeJS.Signals): Promise<Exit> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill(signal);
    return this.exited;
  }
}

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly patienceMs?: number;
}

/** Runs a program to its end. @throws Error with its output when it fails or is missing */
export async function run(
  file: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  return (await runForBytes(file, args, options)).toString();
}

/** Like run, for output that is no text. */
export function runForBytes(
  file: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const { env = process.env, patienceMs = PATIENCE_MS } = options;
    const limits = { maxBuffer: 1 << 28, timeout: patienceMs, encoding: 'buffer' } as const;
    execFile(file, args, { ...limits, env }, (error, stdout, stderr) => {
      if (!error) return resolve(stdout);
      const why = stderr.toString().trim() || error.message;
      return reject(new Error(`${file} ${args.join(' ')}: ${why}\n${stdout.toString().slice(-2000)}`));
    });
  });
}
