import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { cache, Containerd, type Release } from '../interop/containerd.ts';
import { Program } from '../interop/program.ts';
import { run } from '../support/run.ts';
import { repository } from '../support/temporary.ts';
import { COLLECT_NOTHING } from './client.ts';

/** What a command of `ctr` came to. */
export interface Outcome {
  readonly ok: boolean;
  /** Its standard output, or what it said when it failed. */
  readonly text: string;
}

export interface AloneOptions {
  /** The `[gc]` table. */
  readonly gc?: string;
  /** Where its folder is made. */
  readonly parent?: string;
  /** With a snapshotter of btrfs, which `parent` must be on. */
  readonly btrfs?: boolean;
}

/** A stock `ctr` on the socket of a ballast that serves alone; all goes when the test ends. */
export class Alone {
  readonly folder: string;
  readonly #release: Release;
  #ballast: Program;

  private constructor(folder: string, release: Release, ballast: Program) {
    this.folder = folder;
    this.#release = release;
    this.#ballast = ballast;
  }

  /** With overlayfs and native. */
  static async start(release: Release, options: AloneOptions = {}): Promise<Alone> {
    const folder = await mkdtemp(join(options.parent ?? tmpdir(), 'alone-'));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    await writeFile(join(folder, 'ballast.toml'), configOf(folder, options));
    await run(join(repository, 'scripts/fetch-containerd'), [release.name]);
    const alone = new Alone(folder, release, launch(folder));
    onTestFinished(async () => {
      await alone.#ballast.stop('SIGKILL');
    });
    await alone.#ballast.says(/ready for changes/);
    return alone;
  }

  get socket(): string {
    return join(this.folder, 'alone.sock');
  }

  /** A program of `ctr` that goes on beside the test; the caller stops it. */
  beside(...args: readonly string[]): Program {
    return new Program(this.#ctr, this.#arguments(args));
  }

  ctr(...args: readonly string[]): Promise<string> {
    return run(this.#ctr, this.#arguments(args));
  }

  /** Runs a script for sh in its folder, in which `ctr` is this one, with its address and namespace. */
  sh(script: string): Promise<string> {
    const ctr = [this.#ctr, ...this.#arguments([])].join(' ');
    return run('sh', ['-ec', `cd ${this.folder}; ctr() { ${ctr} "$@"; }; ${script}`]);
  }

  /** It dies at once and is started again. */
  async kill(): Promise<void> {
    await this.#ballast.stop('SIGKILL');
    this.#ballast = launch(this.folder);
    await this.#ballast.says(/ready for changes/);
  }

  get #ctr(): string {
    return join(cache, 'containerd', this.#release.name, 'usr/bin/ctr');
  }

  #arguments(args: readonly string[]): readonly string[] {
    return ['--address', this.socket, '--namespace', 'test', ...args];
  }
}

const launch = (folder: string): Program =>
  new Program(join(repository, 'bin/ballast'), [
    'serve',
    '--config',
    join(folder, 'ballast.toml'),
    '--log-format',
    'text',
  ]);

const configOf = (folder: string, options: AloneOptions): string => `root = "${folder}/root"
[standalone]
socket = "${folder}/alone.sock"
[gc]
${options.gc ?? COLLECT_NOTHING}
[snapshotter.overlayfs]
driver = "overlay"
[snapshotter.native]
driver = "native"
${options.btrfs === true ? '[snapshotter.btrfs]\ndriver = "btrfs"' : ''}
`;

/** A containerd with its own stores, which collects nothing while a test compares. */
export async function plainContainerd(release: Release, folder: string): Promise<Containerd> {
  const containerd = await Containerd.start({
    release,
    folder,
    namespace: 'test',
    dropIn: `version = 2
[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "0s"
  mutation_threshold = 1000000
  pause_threshold = 0.0000001
`,
  });
  onTestFinished(() => containerd.stop());
  return containerd;
}

export async function outcomeOf(printed: Promise<string>): Promise<Outcome> {
  try {
    return { ok: true, text: await printed };
  } catch (error) {
    return { ok: false, text: error instanceof Error ? error.message : String(error) };
  }
}

/**
 * What a command came to, without times, folders and numbers. Failures say the same in other words.
 * @param work where it ran
 */
export const shown = (
  { ok, text }: Outcome,
  folder: string,
  work: string = folder,
): readonly string[] =>
  ok ? normal(text.replaceAll(work, 'WORK').replaceAll(folder, 'FOLDER')).split('\n') : ['fails'];

const normal = (text: string): string =>
  text
    .replace(/(?:FOLDER|WORK)\/\S*?\/snapshots\/\d+/g, 'SNAPSHOT')
    .replace(/\d{4}-\d\d-\d\d[T ][\d:.]+( \+0000 UTC|Z)?/g, 'TIME')
    .replace(/subvolid=\d+/g, 'subvolid=N')
    .replace(/Less than a second|About a minute|\d+ (second|minute)s?/g, 'AGE')
    .replace(/[\d.]+ *m?s\b/g, 'DURATION')
    .replace(/[ \t]+/g, ' ')
    // Labels, in the random order of Go's maps, and mount options, whose order differs between releases.
    .replace(/[^ \n]+=[^ \n]*,[^ \n]+/g, (list) => list.split(',').toSorted().join(','));
