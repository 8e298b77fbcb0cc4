import { test } from 'vitest';
import { slowDiskMissing } from './slow-disk.ts';

/**
 * A test that needs the slow disk. Where there is none, a test says so instead, and fails when
 * BALLAST_REQUIRE_SHARED is set.
 */
export function slowDiskTest(title: string, body: () => Promise<void>, timeoutMs: number): void {
  if (slowDiskMissing === undefined) {
    test(title, body, timeoutMs);
    return;
  }
  test(`NOT TESTED HERE: ${title}`, () => {
    process.stderr.write(`NOT TESTED: ${title}: ${slowDiskMissing}\n`);
    if (process.env['BALLAST_REQUIRE_SHARED']) throw new Error(slowDiskMissing);
  });
}
