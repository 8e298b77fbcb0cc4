import type { MessagePort } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { decodeError, type JobMap, type JobResult, type Jobs } from './protocol.ts';

/**
 * Upper limits, not reservations. Jobs make little garbage, so a small young generation keeps a busy
 * thread at a few megabytes; the old one has to hold the names of a directory with a million entries.
 */
const RESOURCE_LIMITS = {
  maxYoungGenerationSizeMb: 2,
  maxOldGenerationSizeMb: 512,
  stackSizeMb: 1,
};

/** How many jobs wait inside the thread, so that it need not ask back between two. */
const JOBS_AHEAD = 16;

/** One thread that runs jobs in the order given; it starts at once. */
export class Thread<Map extends Jobs<Map> = JobMap> {
  readonly #pool: Piscina;
  /** Resolves when it has loaded its code, which it tells by a first message, or failed to: then its jobs fail. */
  readonly started: Promise<void>;

  /** `entry`: the bundled file that exports `runJob`. */
  constructor(entry: string) {
    this.#pool = new Piscina({
      filename: entry,
      name: 'runJob',
      minThreads: 1,
      maxThreads: 1,
      concurrentTasksPerWorker: JOBS_AHEAD,
      maxQueue: Infinity,
      recordTiming: false,
      resourceLimits: RESOURCE_LIMITS,
    });
    this.started = new Promise((resolve) => {
      for (const thread of this.#pool.threads)
        for (const event of ['message', 'error', 'exit']) thread.once(event, () => resolve());
    });
  }

  /** @throws what the job threw: OpError, SyncFailure, or Error for a defect or a thread that died */
  async run<Name extends keyof Map>(
    name: Name,
    input: Map[Name]['in'],
    transfer: readonly (ArrayBuffer | MessagePort)[] = [],
  ): Promise<Map[Name]['out']> {
    const result: JobResult<Map[Name]['out']> = await this.#pool.run(
      { name, input },
      { transferList: [...transfer] },
    );
    if ('error' in result) throw decodeError(result.error);
    return result.output;
  }

  /** Ends the thread; its jobs must have ended. */
  async close(): Promise<void> {
    await this.#pool.destroy();
  }
}
