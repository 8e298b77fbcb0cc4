import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { imagesMissing } from '../hostile/images.ts';
import { run } from './run.ts';
import { shared } from './slow-disk.ts';

/** A directory outside of every root that hostile images try to reach. */
export const BAIT = '/ballast-canary';

/** Once for all test files, as some that look at it run at the same time. */
export async function setup(): Promise<void> {
  if (imagesMissing === undefined) {
    await run('python3', [join(shared, 'images/make.py'), '--canary']);
  }
}

export function teardown(): void {
  rmSync(BAIT, { recursive: true, force: true });
}
