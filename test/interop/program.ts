import { spawnTied } from '../support/run.ts';
import type { ChildProcess, SpawnOptions } from 'node:child_process';

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** How long a line may take that an idle machine prints within a second. */
const PATIENCE_MS = 60_000;

/** A program that runs beside the test; what it writes to stdout and stderr is kept as one text. */
export class Program {
  readonly pid: number;
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #onOutput = new Set<() => void>();
  #output = '';

  constructor(file: string, args: readonly string[], options: SpawnOptions = {}) {
    this.#name = [file, ...args].join(' ');
    this.#child = spawnTied(file, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      ...options,
    });
    this.pid = this.#child.pid ?? 0;
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#output += text;
        for (const look of this.#onOutput) look();
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

  /** Writes to its standard input, where the options have made a pipe of it. */
  tell(text: string): void {
    this.#child.stdin?.write(text);
  }

  /**
   * Resolves when the output matches, from this position on. @throws Error with the output when the program
   * ends first
   */
  async says(pattern: RegExp, from = 0): Promise<void> {
    const patience = AbortSignal.timeout(PATIENCE_MS);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = () => {
      if (pattern.test(this.#output.slice(from))) resolve();
    };
    const fail = (what: string) => reject(new Error(`${this.#name} ${what}: ${this.#output}`));
    patience.addEventListener('abort', () => fail(`did not say ${pattern}`));
    this.exited.then(({ code, signal }) => fail(`ended (${code ?? signal})`), reject);
    this.#onOutput.add(look);
    try {
      look();
      await promise;
    } finally {
      this.#onOutput.delete(look);
    }
  }

  /** Sends the signal and resolves when the program is gone; one that is gone already is left alone. */
  async stop(signal: NodeJS.Signals): Promise<Exit> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill(signal);
    return this.exited;
  }
}
