// What a layer has so far goes to the disk while the rest of it is still to come.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { on } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect, test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { digestOf } from '../../src/base/digest.ts';
import { TAR_LIMITS } from '../../src/diff/apply/limits.ts';
import { ThreadedApplier } from '../../src/diff/apply/threaded-applier.ts';
import { PLAIN_LAYER } from '../../src/diff/diff.ts';
import { PATIENCE_MS, within } from '../support/patience.ts';
import { END, rawEntry } from '../support/tar.ts';
import { repository, temporaryFolder } from '../support/temporary.ts';

const PIECE_BYTES = 256 * 1024;

test('a layer is flushed while its last bytes are still to come', async () => {
  await using folder = await temporaryFolder('flush');
  const plain = Buffer.concat([rawEntry({ name: 'file' }, Buffer.alloc(100 << 20, 7)), END]);
  const digest = digestOf('sha256', createHash('sha256').update(plain).digest('hex'));
  await using tracer = await Tracer.start('syncfs');
  const events: string[] = [];
  async function* chunks(): AsyncIterable<Uint8Array> {
    for (let at = 0; at < plain.length; at += PIECE_BYTES) {
      if (at + PIECE_BYTES >= plain.length) {
        await within(PATIENCE_MS, 'a flush', tracer.next(/syncfs\(/));
        events.push('flushed');
      }
      yield plain.subarray(at, at + PIECE_BYTES);
    }
  }
  const workerEntry = join(repository, 'dist/layer-worker.mjs');
  const blobs = { sourceOf: async () => ({ chunks: chunks(), toVerify: true }) };
  await using applier = new ThreadedApplier({ workerEntry, limits: TAR_LIMITS, blobs });
  const layer = { mediaType: PLAIN_LAYER, digest, size: plain.length };
  const mounts = [{ type: 'bind', source: folder.path, target: '', options: ['rw', 'rbind'] }];
  expect((await applier.apply(background, layer, mounts)).digest).toBe(digest);
  expect(events).toEqual(['flushed']);
});

/** Calls of this process and its threads, as strace prints them. */
class Tracer implements AsyncDisposable {
  readonly #process;
  readonly #lines: AsyncIterator<unknown>;

  private constructor(call: string) {
    const trace = ['-f', '-e', `trace=${call}`, '-p', String(process.pid)];
    this.#process = spawn('strace', trace, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#lines = on(createInterface(this.#process.stderr), 'line');
  }

  static async start(call: string): Promise<Tracer> {
    const tracer = new Tracer(call);
    await within(PATIENCE_MS, 'strace', tracer.next(/attached/));
    return tracer;
  }

  /** Resolves when a line comes that is like this. */
  async next(pattern: RegExp): Promise<void> {
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done === true) throw new Error('strace has ended');
      if (pattern.test(String(value))) return;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once('close', resolve));
    this.#process.kill('SIGINT');
    await ended;
  }
}
