import { randomUUID } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { run } from '../support/run.ts';
import { repository } from '../support/temporary.ts';
import { Program } from './program.ts';

/** One of Debian's containerds, as `scripts/fetch-containerd` unpacks them. */
export interface Release {
  readonly name: '1.6' | '1.7' | '2.x';
  /**
   * Flags that make `ctr images` import and export in the client, where the release knows another way: of an export
   * through the daemon it may end before it has all.
   */
  readonly local: readonly string[];
}

export const RELEASES: readonly Release[] = [
  { name: '1.6', local: [] },
  { name: '1.7', local: ['--local'] },
  { name: '2.x', local: ['--local'] },
];

export const cache = process.env['BALLAST_CACHE'] ?? join(homedir(), '.cache/ballast');

export interface ContainerdOptions {
  readonly release: Release;
  /** A folder for its root, state, socket and config. */
  readonly folder: string;
  /** What `ballast config print containerd` says. */
  readonly dropIn: string;
  /** The containerd namespace that the test works in; also the name of its cgroup. */
  readonly namespace: string;
  /** Where it finds programs, behind its own folder; by default where we do. */
  readonly path?: string;
  /** With Kubernetes' side, which the drop-in configures then. */
  readonly kubernetes?: boolean;
}

/** Goes on after a containerd that was told to end, when it is told so; all ends with one that fails. */
const INIT = `
  mount --bind "$1/run" /run/containerd || exit
  while containerd --config "$1/config.toml" && echo "containerd has ended" && read -r _; do :; done`;

/**
 * A containerd in mount and process namespaces of its own: its shims insist on sockets below
 * /run/containerd, which is a private folder there, and killing one process ends every shim and
 * container with all that they mounted, whatever state a failed test left them in.
 */
export class Containerd {
  readonly #options: ContainerdOptions;
  readonly #program: Program;
  /** The folder of its programs. */
  readonly binaries: string;

  private constructor(options: ContainerdOptions, program: Program, binaries: string) {
    this.#options = options;
    this.#program = program;
    this.binaries = binaries;
  }

  /** Downloads the release if need be, starts it and waits until it has loaded its plugins. */
  static async start(options: ContainerdOptions): Promise<Containerd> {
    const { folder, release } = options;
    await run(join(repository, 'scripts/fetch-containerd'), [release.name]);
    const binaries = join(cache, 'containerd', release.name, 'usr/bin');
    await mkdir('/run/containerd', { recursive: true });
    await mkdir(join(folder, 'run'), { recursive: true });
    await writeFile(join(folder, 'ballast.toml'), options.dropIn);
    await writeFile(join(folder, 'config.toml'), mainConfig(options));
    const apart = '--mount --propagation private --pid --fork --kill-child --mount-proc'.split(' ');
    const program = new Program('unshare', [...apart, 'sh', '-c', INIT, 'sh', folder], {
      stdio: 'pipe',
      env: { ...process.env, PATH: `${binaries}:${options.path ?? process.env['PATH']}:/usr/sbin` },
    });
    const containerd = new Containerd(options, program, binaries);
    try {
      await program.says(/successfully booted/);
    } catch (error) {
      await containerd.stop();
      throw error;
    }
    return containerd;
  }

  /** Of the daemon itself, below the programs that put it into namespaces of its own. */
  async daemonPid(): Promise<number> {
    const [init = 0] = await childrenOf(this.#program.pid);
    // Shims are its children too.
    for (const pid of await childrenOf(init)) {
      if ((await readFile(`/proc/${pid}/comm`, 'utf8')) === 'containerd\n') return pid;
    }
    throw new Error(`no containerd runs: ${this.log}`);
  }

  /** Ends the daemon as systemd does: shims and containers go on. */
  async stopDaemon(): Promise<void> {
    const from = this.log.length;
    process.kill(await this.daemonPid(), 'SIGTERM');
    await this.#program.says(/^containerd has ended$/m, from);
  }

  /** Starts the daemon anew beside the shims that it left. */
  async startDaemon(): Promise<void> {
    const from = this.log.length;
    this.#program.tell('\n');
    await this.#program.says(/successfully booted/, from);
  }

  get log(): string {
    return this.#program.output;
  }

  /** Runs `ctr` against it and returns what it printed. */
  ctr(...args: readonly string[]): Promise<string> {
    return run(join(this.binaries, 'ctr'), this.#arguments(args));
  }

  /** Runs a script for sh in its folder, in which `ctr` is its own, with its address and namespace. */
  sh(script: string): Promise<string> {
    const ctr = [join(this.binaries, 'ctr'), ...this.#arguments([])].join(' ');
    return run('sh', ['-ec', `cd ${this.#options.folder}; ctr() { ${ctr} "$@"; }; ${script}`]);
  }

  /** Runs `ctr` and keeps what it printed as a file: layers are no text. */
  async ctrInto(file: string, ...args: readonly string[]): Promise<void> {
    const command = [join(this.binaries, 'ctr'), ...this.#arguments(args)];
    await run('sh', ['-c', 'file=$1; shift; exec "$@" >"$file"', 'sh', file, ...command]);
  }

  /** Runs a container in the foreground; `args` as `ctr run` takes them. */
  run(...args: readonly string[]): Promise<string> {
    return this.ctr('run', '--fifo-dir', this.#fifos, ...args);
  }

  /** Runs a command in a container that runs already. */
  exec(container: string, ...command: readonly string[]): Promise<string> {
    const id = randomUUID();
    return this.ctr(
      'tasks',
      'exec',
      '--fifo-dir',
      this.#fifos,
      '--exec-id',
      id,
      container,
      ...command,
    );
  }

  /** What is mounted below `folder` where containerd and its shims live. */
  mountsBelow(folder: string): Promise<readonly string[]> {
    return mountsBelow(folder, this.#program.pid);
  }

  /** Ends it with all its shims and containers. */
  async stop(): Promise<void> {
    await this.#program.stop('SIGKILL');
  }

  get #fifos(): string {
    return join(this.#options.folder, 'fifo');
  }

  #arguments(args: readonly string[]): readonly string[] {
    const { folder, namespace } = this.#options;
    return ['--address', join(folder, 'containerd.sock'), '--namespace', namespace, ...args];
  }
}

async function childrenOf(pid: number): Promise<readonly number[]> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return children.split(' ').filter(Boolean).map(Number);
}

/** Mount points below `folder`, in the mount namespace of a process (default: ours). */
export async function mountsBelow(folder: string, pid = process.pid): Promise<readonly string[]> {
  const table = await readFile(`/proc/${pid}/mountinfo`, 'utf8');
  return table
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point.startsWith(`${folder}/`));
}

/** What an operator's config has besides the drop-in, plus what keeps it away from the machine's folders. */
function mainConfig({ folder, kubernetes = false }: ContainerdOptions): string {
  const cri = kubernetes
    ? ''
    : '"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",';
  return `version = 2
root = "${folder}/root"
state = "${folder}/state"
imports = ["${folder}/ballast.toml"]
disabled_plugins = [
  ${cri}
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart",
]
[grpc]
  address = "${folder}/containerd.sock"
`;
}
