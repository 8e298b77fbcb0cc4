import { constants, getPriority, setPriority } from 'node:os';
import { OpError } from '../../base/errors.ts';
import { cancellationOf } from './cancellation.ts';
import {
  addFileAlgorithm,
  appendToFile,
  closeFile,
  openFile,
  readFileOn,
  truncateFile,
} from './hashed-files.ts';
import { copyTree } from './copy-tree.ts';
import { makeAllDirectories } from './make-directories.ts';
import { measureParts } from './measure-parts.ts';
import { measureTree } from './measure-tree.ts';
import { makeDirectoryBeneath } from './mounts/make-directory-beneath.ts';
import { listMounts, makeMount, takeDownMounts } from './mounts/make-mount.ts';
import { placeBlobs } from './place-blobs.ts';
import {
  decodeError,
  encodeError,
  type EncodedError,
  type JobName,
  type JobMap,
  type JobRequest,
  type JobResult,
  resultOf,
} from './protocol.ts';
import { removeTree } from './remove-tree.ts';
import { sealTrees } from './seal-trees.ts';
import { listSubvolumes } from './subvolumes/list-subvolumes.ts';
import { makeSubvolumes } from './subvolumes/make-subvolumes.ts';
import { measureSealed, measureWritten } from './subvolumes/measure-subvolume.ts';
import { enableQuotas, limitSubvolume } from './subvolumes/quotas.ts';
import { removeSubvolumes } from './subvolumes/remove-subvolumes.ts';

type Output = JobMap[JobName]['out'];

/** What a thread does with a message: blocking work. */
export const runJob = (request: JobRequest): Promise<JobResult<Output>> =>
  resultOf(() => run(request));

function run({ name, input }: JobRequest): Output | Promise<Output> {
  switch (name) {
    case 'makeDirectories':
      return makeAllDirectories(input);
    case 'copyTree':
      return copyTree(input.from, input.to, cancellationOf(input.cancel, 'copying'));
    case 'measureTree':
      return measureWhole(input);
    case 'measureParts':
      return measureParts(
        input.root,
        input.part,
        input.rules,
        cancellationOf(input.cancel, 'measuring'),
      );
    case 'removeTrees':
      return inBackground(() => removeTrees(input));
    case 'sealTrees':
      return sealTrees(input);
    case 'placeBlobs':
      return placeBlobs(input);
    case 'makeSubvolumes':
      return makeSubvolumes(input);
    case 'measureSubvolume':
      return measureSealed(input);
    case 'measureWritten':
      return measureWritten(input);
    case 'limitSubvolume':
      return limitSubvolume(input.path, input.limit);
    case 'removeSubvolumes':
      return inBackground(() =>
        removeSubvolumes(input.paths, cancellationOf(input.cancel, 'removing')),
      );
    case 'listSubvolumes':
      return listSubvolumes(input);
    case 'enableQuotas':
      return enableQuotas(input);
    case 'makeMount':
      return makeMount(input);
    case 'listMounts':
      return listMounts(input);
    case 'takeDownMounts':
      return takeDownMounts(input);
    case 'makeDirectoryBeneath':
      return makeDirectoryBeneath(input);
    case 'openFile':
      return openFile(input.path, input.algorithms);
    case 'appendToFile':
      return appendToFile(input.id, input.data);
    case 'truncateFile':
      return truncateFile(input.id);
    case 'addFileAlgorithm':
      return addFileAlgorithm(input.id, input.algorithm);
    case 'closeFile':
      return closeFile(input.id);
    case 'readFileOn':
      return readFileOn(input.id);
  }
}

function measureWhole({ path, cancel }: JobMap['measureTree']['in']) {
  const size = measureTree(path, cancellationOf(cancel, 'measuring'));
  if (size === undefined)
    throw new OpError('Internal', `measuring ${path}: gave up without a limit`);
  return size;
}

/** Goes on after a tree that cannot go, so that one mount does not keep all the others. */
function removeTrees({ paths, cancel }: JobMap['removeTrees']['in']): void {
  const cancellation = cancellationOf(cancel, 'removing');
  let failure: EncodedError | undefined;
  for (const path of paths) {
    cancellation.check();
    try {
      removeTree(path, cancellation);
    } catch (error) {
      failure ??= encodeError(error);
    }
  }
  if (failure !== undefined) throw decodeError(failure);
}

/** How much less often than others the thread runs while it does what nobody waits for. nice(1) */
const NICER_BY = 10;

/** Linux keeps a priority for each thread; only a privileged one can have its own back. */
function inBackground<T>(job: () => T): T {
  if (process.geteuid?.() !== 0) return job();
  const priority = getPriority();
  setPriority(Math.min(priority + NICER_BY, constants.priority.PRIORITY_LOW));
  try {
    return job();
  } finally {
    setPriority(priority);
  }
}
