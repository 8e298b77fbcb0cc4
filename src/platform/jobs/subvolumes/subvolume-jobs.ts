import { dirname } from 'node:path';
import { quote } from '../../../base/errors.ts';
import type {
  DirectoryOfSubvolumes,
  MeasuredSubvolume,
  SubvolumeJobs,
  SubvolumeLimit,
  SubvolumeMade,
  SubvolumeSize,
  SubvolumeToMake,
} from '../../platform.ts';
import type { CancelFlag } from '../cancellation.ts';
import { GroupedByName, type Outcome } from '../grouped.ts';
import { LanesByName } from '../lane.ts';
import { decodeError, type JobMap, type JobName } from '../protocol.ts';

/** What the other jobs run with, too. */
export interface Runner {
  onThread<Name extends JobName>(
    name: Name,
    input: JobMap[Name]['in'],
  ): Promise<JobMap[Name]['out']>;
  /** Raises the flag when the signal comes; closing waits for what is started. */
  cancelable<T>(signal: AbortSignal, start: (cancel: CancelFlag) => Promise<T>): Promise<T>;
  tracked<T>(work: Promise<T>): Promise<T>;
}

/**
 * How many subvolumes are made at once, each on a thread of libuv's, so that they share a transaction:
 * twice as many bring a fifth more, and bin/ballast starts that many threads for two disks that hang.
 */
const MADE_MAX = 32;

export class ThreadedSubvolumeJobs implements SubvolumeJobs {
  readonly #runner: Runner;
  /** By the folder that a driver's snapshots share: a dead disk stops only its own. */
  readonly #made = new GroupedByName<SubvolumeToMake, SubvolumeMade>(
    MADE_MAX,
    (_folder, subvolumes) => this.#makeGroup(subvolumes),
  );
  readonly #measures = new LanesByName({ parallel: 1, slowMs: 100, parallelMax: 4 });
  readonly #removals = new LanesByName({ parallel: 1, slowMs: 1000, parallelMax: 2 });

  constructor(runner: Runner) {
    this.#runner = runner;
  }

  make(folder: string, subvolume: SubvolumeToMake): Promise<SubvolumeMade> {
    return this.#runner.tracked(this.#made.call(folder, subvolume));
  }

  measureSealed(
    folder: string,
    request: Omit<JobMap['measureSubvolume']['in'], 'cancel'>,
    signal: AbortSignal,
  ): Promise<SubvolumeSize> {
    const what = `measuring ${quote(request.path)}`;
    return this.#runner.cancelable(signal, (cancel) =>
      this.#measures.run(folder, what, signal, () =>
        this.#runner.onThread('measureSubvolume', { ...request, cancel }),
      ),
    );
  }

  measure(
    folder: string,
    request: Omit<JobMap['measureWritten']['in'], 'cancel'>,
    signal: AbortSignal,
  ): Promise<MeasuredSubvolume> {
    const what = `measuring ${quote(request.path)}`;
    return this.#runner.cancelable(signal, (cancel) =>
      this.#measures.run(folder, what, signal, () =>
        this.#runner.onThread('measureWritten', { ...request, cancel }),
      ),
    );
  }

  limit(path: string, limit: SubvolumeLimit): Promise<boolean> {
    return this.#runner.tracked(this.#runner.onThread('limitSubvolume', { path, limit }));
  }

  remove(folder: string, paths: readonly string[], signal: AbortSignal): Promise<void> {
    const what = `removing ${paths.length} subvolumes of ${quote(dirname(folder))}`;
    return this.#runner.cancelable(signal, (cancel) =>
      this.#removals.run(folder, what, signal, () =>
        this.#runner.onThread('removeSubvolumes', { paths, cancel }),
      ),
    );
  }

  list(folder: string): Promise<readonly DirectoryOfSubvolumes[]> {
    return this.#runner.tracked(this.#runner.onThread('listSubvolumes', folder));
  }

  enableQuotas(folder: string): Promise<void> {
    return this.#runner.tracked(this.#runner.onThread('enableQuotas', folder));
  }

  async #makeGroup(
    subvolumes: readonly SubvolumeToMake[],
  ): Promise<readonly Outcome<SubvolumeMade>[]> {
    const made = await this.#runner.onThread('makeSubvolumes', subvolumes);
    return made.map((each) =>
      'error' in each ? { error: decodeError(each.error) } : { value: each },
    );
  }
}
