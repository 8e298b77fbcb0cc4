import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { imagesMissing } from '../hostile/images.ts';
import { run } from './run.ts';
import { shared } from './slow-disk.ts';

/** A directory outside of every root that hostile images try to reach. */
export const BAIT = '/ballast-canary';
/** Processes that run tests now, each a file named like its id: the last one takes the bait away. */
const USERS = join(tmpdir(), 'ballast-canary-users');
const USER = join(USERS, String(process.pid));

/** Once for all test files, as some that look at it run at the same time. */
export async function setup(): Promise<void> {
  if (imagesMissing !== undefined) return;
  mkdirSync(USERS, { recursive: true });
  writeFileSync(USER, '');
  if (!existsSync(BAIT)) await run('python3', [join(shared, 'images/make.py'), '--canary']);
}

export function teardown(): void {
  if (imagesMissing !== undefined) return;
  rmSync(USER, { force: true });
  if (readdirSync(USERS).some((pid) => existsSync(`/proc/${pid}`))) return;
  rmSync(BAIT, { recursive: true, force: true });
  rmSync(USERS, { recursive: true, force: true });
}
