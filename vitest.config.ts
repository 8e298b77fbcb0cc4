import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    globalSetup: ['test/support/bait.ts'],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Two cores, and most tests start daemons, mounts and loop devices of their own.
    maxWorkers: 2,
  },
});
