import { testUnless } from '../support/unless-missing.ts';
import { imagesMissing } from './images.ts';

/** A test that needs the nasty and hostile images. */
export const imagesTest = (title: string, body: () => Promise<void>, timeoutMs: number): void =>
  testUnless(imagesMissing, title, body, timeoutMs);
