import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { cache, Containerd, type Release } from '../interop/containerd.ts';
import type { Site } from '../interop/site.ts';
import { repository } from '../support/temporary.ts';

const ballastCommand = join(repository, 'bin/ballast');

export interface Answer {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs the built `ballast` to its end, whatever that is. */
export function ballast(...args: readonly string[]): Promise<Answer> {
  return answerOf(ballastCommand, args);
}

export function answerOf(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { env }, (error, out, err) => {
      if (error !== null && typeof error.code !== 'number') reject(error);
      else resolve({ code: Number(error?.code ?? 0), out, err });
    });
  });
}

export const ctrOf = (release: Release): string =>
  join(cache, 'containerd', release.name, 'usr/bin/ctr');

/** The config of a site's ballast. */
export const configOf = (site: Site): string => join(site.folder, 'ballast-config.toml');

/** What `config print containerd` prints for a site. */
export async function printDropIn(
  site: Site,
  release: Release,
  ...flags: readonly string[]
): Promise<string> {
  const print = ['config', 'print', 'containerd', '--version', release.name];
  const { code, out, err } = await ballast(...print, '--config', configOf(site), ...flags);
  if (code !== 0) throw new Error(err);
  return out;
}

/** A containerd beside a site's ballast; it ends with the test, or before by `stop`. */
export async function startContainerd(
  site: Site,
  release: Release,
  dropIn: string,
): Promise<Containerd> {
  const { folder, namespace } = site;
  const containerd = await Containerd.start({ release, folder, namespace, dropIn });
  onTestFinished(() => containerd.stop());
  return containerd;
}

/** `ballast check` of a site's ballast and the containerd beside it. */
export const check = (site: Site): Promise<Answer> =>
  ballast(
    'check',
    '--config',
    configOf(site),
    '--containerd',
    join(site.folder, 'containerd.sock'),
  );
