import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { run } from '../support/run.ts';
import { repository } from '../support/temporary.ts';
import { cache } from './containerd.ts';
import { Program } from './program.ts';
import type { Site, SnapshotterName } from './site.ts';

const binaries = join(cache, 'containerd/docker/usr');

/**
 * A dockerd of Debian's that keeps images and containers in the containerd of a site. It lives in containerd's
 * namespaces: what it mounts must be seen by containers, and ends with containerd.
 */
export class Docker {
  readonly #program: Program;
  readonly #folder: string;
  /** Runs a program where containers live. */
  readonly #inside: readonly string[];
  #isStopped = false;

  private constructor(program: Program, folder: string, inside: readonly string[]) {
    this.#program = program;
    this.#folder = folder;
    this.#inside = inside;
  }

  static async start(site: Site, snapshotter: SnapshotterName): Promise<Docker> {
    await run(join(repository, 'scripts/fetch-containerd'), ['docker']);
    const folder = join(site.folder, 'docker');
    await mkdir(folder);
    const config = join(folder, 'daemon.json');
    await writeFile(config, JSON.stringify(configOf(site, folder, snapshotter)));
    const pid = await site.containerd.daemonPid();
    const inside = ['--target', String(pid), '--mount', '--pid'];
    const daemon = [join(binaries, 'sbin/dockerd'), '--config-file', config];
    const path = `${binaries}/bin:${binaries}/sbin:${site.containerd.binaries}:${process.env['PATH']}`;
    const env = { ...process.env, PATH: `${path}:/usr/sbin:/sbin` };
    const program = new Program('nsenter', [...inside, ...daemon], { env });
    const docker = new Docker(program, folder, inside);
    onTestFinished(() => docker.stop());
    await program.says(/API listen on/);
    return docker;
  }

  /** Runs `docker` against it and returns what it printed. */
  cli(...args: readonly string[]): Promise<string> {
    return run(join(binaries, 'bin/docker'), [
      '--host',
      `unix://${this.#folder}/docker.sock`,
      ...args,
    ]);
  }

  async stop(): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    // Signals end at nsenter.
    const pid = await readFile(join(this.#folder, 'pid'), 'utf8');
    await run('nsenter', [...this.#inside, 'kill', pid.trim()]);
    await this.#program.exited;
  }
}

const configOf = (site: Site, folder: string, snapshotter: SnapshotterName): unknown => ({
  hosts: [`unix://${folder}/docker.sock`],
  containerd: join(site.folder, 'containerd.sock'),
  'containerd-namespace': site.namespace,
  'containerd-plugins-namespace': `${site.namespace}-plugins`,
  'data-root': join(folder, 'data'),
  'exec-root': join(folder, 'run'),
  pidfile: join(folder, 'pid'),
  'cgroup-parent': `/${site.namespace}`,
  features: { 'containerd-snapshotter': true },
  'storage-driver': snapshotter,
  bridge: 'none',
  iptables: false,
  ip6tables: false,
});
