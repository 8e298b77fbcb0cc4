import { slowDiskMissing } from './slow-disk.ts';
import { testUnless } from './unless-missing.ts';

/** A test that needs the slow disk. */
export const slowDiskTest = (title: string, body: () => Promise<void>, timeoutMs: number): void =>
  testUnless(slowDiskMissing, title, body, timeoutMs);
