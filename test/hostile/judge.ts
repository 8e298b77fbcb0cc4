import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { BAIT } from '../support/bait.ts';
import { run } from '../support/run.ts';
import { shared } from '../support/slow-disk.ts';
import { repository } from '../support/temporary.ts';

const factory = join(shared, 'images');

/** Of the tree of the bait: another one when something got out of its root. */
export const baitHash = (): Promise<string> =>
  run('python3', [join(factory, 'tree.py'), '--hash', BAIT]);

interface Question {
  readonly name: string;
  readonly root: string | null;
  readonly refused: boolean;
}

/** The factory's own check, as one process for all cases. */
export class Judge implements AsyncDisposable {
  readonly #child = spawn('python3', [join(repository, 'test/hostile/check_trees.py'), factory], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  readonly #answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();

  async ask(question: Question): Promise<readonly string[]> {
    this.#child.stdin.write(`${JSON.stringify(question)}\n`);
    const { value, done } = await this.#answers.next();
    if (done === true) throw new Error('the check ended');
    const complaints: unknown = JSON.parse(value);
    return Array.isArray(complaints) ? complaints.map(String) : [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin.end();
    await once(this.#child, 'exit');
  }
}
