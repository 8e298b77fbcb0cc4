import { dirname } from 'node:path';
import type { DirectoryBeneath, MountJobs, MountToMake } from '../../platform.ts';
import { LanesByName } from '../lane.ts';
import type { JobMap, JobName } from '../protocol.ts';
import type { Runner } from '../subvolumes/subvolume-jobs.ts';

/** Nobody gives up on one of these: what is begun has to be known. */
const signal = new AbortController().signal;

export class ThreadedMountJobs implements MountJobs {
  readonly #runner: Pick<Runner, 'onThread' | 'tracked'>;
  /** One that hangs, on a device that is gone, stops only others of its folder. */
  readonly #lanes = new LanesByName({ parallel: 1, slowMs: 100, parallelMax: 4 });

  constructor(runner: Pick<Runner, 'onThread' | 'tracked'>) {
    this.#runner = runner;
  }

  make(folder: string, mount: MountToMake, point: string): Promise<void> {
    return this.#run(dirname(folder), 'makeMount', { folder, mount, point });
  }

  list(parent: string): Promise<ReadonlySet<string>> {
    return this.#run(parent, 'listMounts', parent);
  }

  takeDown(folder: string): Promise<void> {
    return this.#run(dirname(folder), 'takeDownMounts', folder);
  }

  makeDirectory(directory: DirectoryBeneath): Promise<void> {
    return this.#run(directory.root, 'makeDirectoryBeneath', directory);
  }

  #run<Name extends JobName>(
    lane: string,
    name: Name,
    input: JobMap[Name]['in'],
  ): Promise<JobMap[Name]['out']> {
    return this.#runner.tracked(
      this.#lanes.run(lane, `mounts of ${lane}`, signal, () => this.#runner.onThread(name, input)),
    );
  }
}
