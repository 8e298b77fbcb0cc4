import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const repository = join(import.meta.dirname, '../..');

export const makeTemporaryRoot = (what: string): Promise<string> =>
  mkdtemp(join(tmpdir(), `proof-${what}-`));

/** A folder that goes with its scope, with all that is in it. */
export async function temporaryFolder(
  what: string,
): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await makeTemporaryRoot(what);
  return {
    path,
    async [Symbol.asyncDispose]() {
      await rm(path, { recursive: true, force: true });
    },
  };
}
