import { OpError, quote } from '../../base/errors.ts';
import {
  cancellationOf,
  never,
  type Cancellation,
  type CancelFlag,
} from '../../platform/jobs/cancellation.ts';
import { removeTreeAt } from '../../platform/jobs/remove-tree.ts';
import { ERRNO, fromSystemError, isErrno } from '../../platform/linux/errno.ts';
import {
  close,
  fchown,
  mkdirat,
  O,
  openat,
  openChildDirectory,
} from '../../platform/linux/files.ts';
import type { Rebase } from '../../snapshotters/driver.ts';
import type { Usage } from '../../snapshotters/snapshotter.ts';
import { entriesIn } from './entry-log.ts';
import { LayerWriter } from './layer-writer.ts';
import type { TarLimits } from './limits.ts';
import { bytesOfName } from './names.ts';
import { ENTRIES, stagedLayers, type StagedLayer } from './stage-layer.ts';
import { openPath, openTree } from './target.ts';
import { namesOf } from './tree.ts';

/** Beside staged layers: a rebase was begun. */
const BEGUN = 'begun';

export interface RebaseLayers extends Rebase {
  readonly limits: TarLimits;
  readonly cancel: CancelFlag;
}

/**
 * What a Rebaser promises. Entries go through the same writer into the same tree as in Apply, but files are linked,
 * with what was written of them then. A crash leaves links in the upper directory, which the next rebase removes
 * first, and the staged layers as they were.
 */
export function rebaseLayers(rebase: RebaseLayers): Usage | undefined {
  const { staged, upper, owner, cancel } = rebase;
  const cancellation = cancellationOf(cancel, 'rebasing a snapshot');
  const directory = openPath(staged);
  try {
    const layers = stagedLayers(directory);
    if (layers.length === 0) return undefined;
    const areNew = isFirst(directory);
    clear(upper, cancellation);
    try {
      setOwner(upper, owner);
      let usage: Usage | undefined;
      // A second one finds the first, and does not count.
      for (const layer of layers) {
        usage = rebaseLayer(rebase, { ...layer, directory, areNew }, cancellation);
      }
      return usage;
    } catch (error) {
      clear(upper, never);
      throw error;
    }
  } finally {
    close(directory);
  }
}

interface LayerToRebase extends StagedLayer {
  /** With all that are staged, open. */
  readonly directory: number;
  readonly areNew: boolean;
}

function rebaseLayer(
  { upper, lowers, xattrPrefix, limits }: RebaseLayers,
  { directory, folder, digest, usage, areNew }: LayerToRebase,
  cancellation: Cancellation,
): Usage | undefined {
  using tree = openTree({ kind: 'overlay', upper, lowers, xattrPrefix }, cancellation);
  const bodies = openChildDirectory(directory, bytesOfName(folder));
  let entries = -1;
  try {
    entries = openat(bodies, bytesOfName(ENTRIES), O.RDONLY | O.NOFOLLOW);
    // What was begun before may have changed something.
    const counted = areNew ? usage : undefined;
    using writer = new LayerWriter(tree, limits, { directory: bodies, areNew, usage: counted });
    for (const entry of entriesIn(entries)) {
      cancellation.check();
      writer.begin(entry);
    }
    writer.finish();
    return tree.usage();
  } catch (error) {
    if (error instanceof OpError) {
      throw new OpError(error.code, `layer ${digest}: ${error.message}`, { cause: error });
    }
    throw fromSystemError(error, `rebasing layer ${digest}`);
  } finally {
    if (entries >= 0) close(entries);
    close(bodies);
  }
}

/**
 * Whether this is the first rebase; it will not be any more. Not synced: should a power cut take the mark, it takes
 * what links did to staged files after it, or the next rebase does the same to them again.
 */
function isFirst(directory: number): boolean {
  try {
    mkdirat(directory, bytesOfName(BEGUN), 0o700);
    return true;
  } catch (error) {
    if (isErrno(error, ERRNO.EEXIST)) return false;
    throw fromSystemError(error, 'beginning a rebase');
  }
}

function clear(upper: string, cancellation: Cancellation): void {
  const fd = openPath(upper);
  try {
    for (const name of namesOf(fd)) {
      removeTreeAt(openPath(upper), bytesOfName(name), upper, cancellation);
    }
  } finally {
    close(fd);
  }
}

function setOwner(upper: string, { uid, gid }: Rebase['owner']): void {
  const fd = openPath(upper);
  try {
    fchown(fd, uid, gid);
  } catch (error) {
    throw fromSystemError(error, `setting the owner of ${quote(upper)}`);
  } finally {
    close(fd);
  }
}
