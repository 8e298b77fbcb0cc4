import { test } from 'vitest';

/**
 * A test that needs what may not be there. Where `missing` says why, a test says so instead, and fails
 * when BALLAST_REQUIRE_SHARED is set.
 */
export function testUnless(
  missing: string | undefined,
  title: string,
  body: () => Promise<void>,
  timeoutMs: number,
): void {
  if (missing === undefined) {
    test(title, body, timeoutMs);
    return;
  }
  test(`NOT TESTED HERE: ${title}`, () => {
    process.stderr.write(`NOT TESTED: ${title}: ${missing}\n`);
    if (process.env['BALLAST_REQUIRE_SHARED']) throw new Error(missing);
  });
}
