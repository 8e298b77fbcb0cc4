import type { ChildProcess } from 'node:child_process';
import { watch } from 'node:fs';
import { rm } from 'node:fs/promises';
import { connect as dial } from 'node:net';
import { dirname, join } from 'node:path';
import { isOpError, messageOf } from '../../src/base/errors.ts';
import { connect, type Client } from './client.ts';
import { PATIENCE_MS, within } from './patience.ts';
import { spawnTied } from './run.ts';
import { makeTemporaryRoot, repository } from './temporary.ts';

/**
 * What starts the server under test, in the foreground. BALLAST_TEST_SERVER puts another one in its
 * place (containerd's own code, say, to see that a test can fail).
 */
export const SERVER =
  process.env['BALLAST_TEST_SERVER'] ??
  `${join(repository, 'bin/ballast')} serve --socket {socket} --root {root} --snapshotter {snapshotter}`;

/** The drivers that property and crash tests run over, by the names that --snapshotter takes. */
export const DRIVERS = ['overlayfs', 'native', 'btrfs'] as const;
export type DriverName = (typeof DRIVERS)[number];

export interface DaemonOptions {
  readonly root: string;
  /** A DriverName, unless the start is to fail. */
  readonly snapshotter: string;
  /** Another server than the one under test, to compare with. */
  readonly command?: string;
  /** More command line arguments. */
  readonly args?: readonly string[];
  /** Where the socket lies; a folder of its own by default, so that a read-only root can be tried. */
  readonly socket?: string;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** One run of the daemon over a root that outlives it. Disposing kills it. */
export class Daemon implements AsyncDisposable {
  readonly options: DaemonOptions;
  readonly socket: string;
  readonly pid: number;
  /** Resolves when the process ended and its output was read. */
  readonly exited: Promise<Exit>;
  readonly #process: ChildProcess;
  readonly #socketFolder: string | undefined;
  #stderr = '';
  #client: Client | undefined;

  private constructor(options: DaemonOptions, socket: string, socketFolder: string | undefined) {
    this.options = options;
    this.socket = socket;
    this.#socketFolder = socketFolder;
    const [program = '', ...args] = (options.command ?? SERVER)
      .split(' ')
      .map((part) =>
        part
          .replace('{socket}', socket)
          .replace('{root}', options.root)
          .replace('{snapshotter}', options.snapshotter),
      );
    this.#process = spawnTied(program, [...args, ...(options.args ?? [])], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.pid = this.#process.pid ?? 0;
    this.#process.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    this.exited = new Promise((resolve, reject) => {
      this.#process.once('error', reject);
      this.#process.once('close', (code, signal) => resolve({ code, signal }));
    });
    this.exited.catch(() => {});
  }

  /** Starts the process without waiting for it to serve: for starts that are to fail. */
  static async launch(options: DaemonOptions): Promise<Daemon> {
    const folder = options.socket ? undefined : await makeTemporaryRoot('socket');
    const socket = options.socket ?? join(folder ?? '', 's.sock');
    return new Daemon(options, socket, folder);
  }

  /** Starts the process and waits until it answers. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const daemon = await Daemon.launch(options);
    try {
      await daemon.#listening();
      await daemon.#recovered();
      return daemon;
    } catch (error) {
      await daemon[Symbol.asyncDispose]();
      throw new Error(`${SERVER} did not start: ${messageOf(error)}: ${daemon.stderr}`, {
        cause: error,
      });
    }
  }

  get client(): Client {
    return (this.#client ??= connect(this.socket, this.options.snapshotter));
  }

  /** Another connection; the caller disposes it. */
  connect(): Client {
    return connect(this.socket, this.options.snapshotter);
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Its end, which is near. */
  ended(): Promise<Exit> {
    return within(PATIENCE_MS, `end of process ${this.pid}`, this.exited);
  }

  signal(signal: 'SIGTERM' | 'SIGKILL'): void {
    this.#process.kill(signal);
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL'): Promise<Exit> {
    this.signal(signal);
    const exit = await this.ended();
    await this.#client?.[Symbol.asyncDispose]();
    this.#client = undefined;
    return exit;
  }

  /** Ends this run and starts the next one on the same root. */
  async restart(signal: 'SIGTERM' | 'SIGKILL'): Promise<Daemon> {
    await this.stop(signal);
    await this[Symbol.asyncDispose]();
    return Daemon.start(this.options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      await this.stop('SIGKILL').catch(() => {});
    }
    await this.#client?.[Symbol.asyncDispose]();
    this.#client = undefined;
    if (this.#socketFolder) await rm(this.#socketFolder, { recursive: true, force: true });
  }

  /** A stale socket file may lie there and refuse: only a connection counts. */
  async #listening(): Promise<void> {
    let wake = (): void => {};
    const folder = watch(dirname(this.socket), () => wake());
    const failed = this.exited.then(({ code, signal }) => {
      throw new Error(`it ended with ${code ?? signal}`);
    });
    try {
      for (const until = Date.now() + PATIENCE_MS; !(await accepts(this.socket));) {
        if (Date.now() > until) throw new Error(`nobody listens on ${this.socket}`);
        const changed = new Promise<void>((resolve) => {
          wake = resolve;
          // bind(2) makes the file, listen(2) a moment later lets connections in without any event.
          setTimeout(resolve, 20);
        });
        await Promise.race([changed, failed]);
      }
    } finally {
      failed.catch(() => {});
      folder.close();
    }
  }

  /** The socket is bound before the root is read: the first answer that needs it comes afterwards. */
  async #recovered(): Promise<void> {
    try {
      await this.client.serving();
    } catch (error) {
      // Servers to compare with may not know of health: that is an answer too.
      if (!isOpError(error, 'Unimplemented')) throw error;
    }
  }
}

function accepts(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = dial(socket);
    connection.once('connect', () => {
      connection.destroy();
      resolve(true);
    });
    connection.once('error', () => resolve(false));
  });
}
