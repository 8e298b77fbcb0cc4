import { getSubvolInfo } from '../../src/platform/linux/btrfs.ts';
import { close, O, open } from '../../src/platform/linux/files.ts';
import { mountOf } from '../../src/platform/linux/mount-of.ts';
import type { Labels } from '../../src/base/labels.ts';
import type { Kind, Mount, Usage } from '../../src/snapshotters/snapshotter.ts';
import type { DriverName } from '../support/daemon.ts';
import { DONE, type Verdict } from './property.ts';

export interface Node {
  kind: Kind;
  parent: string;
  labels: Labels;
  createdAt: bigint;
  updatedAt: bigint;
  /** Where its own files lie; that of a view is nobody's business. */
  directory: string;
  mounts: readonly Mount[];
  usage: Usage | undefined;
}

/** Any of these codes: the contract does not say which check comes first. */
const either = (...verdicts: Verdict[]): Verdict => verdicts.flat();

/** What a tree of snapshots answers, and nothing of how. */
export class SnapshotModel {
  readonly nodes = new Map<string, Node>();
  readonly #rebases: boolean;

  constructor(driver: DriverName) {
    this.#rebases = driver === 'overlayfs';
  }

  make(key: string, parent: string): Verdict {
    const above = this.nodes.get(parent);
    const noKey: Verdict = key === '' ? ['InvalidArgument'] : DONE;
    if (parent !== '' && !above) return either(['NotFound'], noKey);
    if (above && above.kind !== 'committed') return ['InvalidArgument'];
    if (key === '') return noKey;
    return this.nodes.has(key) ? ['AlreadyExists'] : DONE;
  }

  commit(name: string, key: string, parent: string): Verdict {
    const node = this.nodes.get(key);
    const taken: Verdict = this.nodes.has(name) ? ['AlreadyExists'] : DONE;
    const noName: Verdict = name === '' || key === '' ? ['InvalidArgument'] : DONE;
    if (!node) return either(['NotFound'], taken, noName);
    if (taken.length > 0) return taken;
    if (noName.length > 0)
      return either(noName, node.kind === 'active' ? DONE : ['FailedPrecondition']);
    if (node.kind !== 'active') return ['FailedPrecondition'];
    if (parent === '' || parent === node.parent) return DONE;
    if (node.parent !== '') return ['InvalidArgument'];
    const above = this.nodes.get(parent);
    if (!above) return ['NotFound'];
    return above.kind === 'committed' && this.#rebases ? DONE : ['FailedPrecondition'];
  }

  remove(key: string): Verdict {
    if (!this.nodes.has(key)) return ['NotFound'];
    return [...this.nodes.values()].some((node) => node.parent === key)
      ? ['FailedPrecondition']
      : DONE;
  }

  find(key: string): Verdict {
    return this.nodes.has(key) ? DONE : ['NotFound'];
  }

  mounts(key: string): Verdict {
    if (!this.nodes.has(key)) return ['NotFound'];
    return this.nodes.get(key)?.kind === 'committed' ? ['FailedPrecondition'] : DONE;
  }

  /** Directories of the committed snapshots above, nearest first. */
  above(parent: string): readonly string[] {
    const node = this.nodes.get(parent);
    return node ? [node.directory, ...this.above(node.parent)] : [];
  }
}

/** Which device and subvolume that directory is, the kernel says. */
function subvolumeMount(directory: string, access: 'ro' | 'rw'): Mount {
  const fd = open(directory, O.RDONLY | O.DIRECTORY);
  const { id } = getSubvolInfo(fd);
  close(fd);
  const options = [`subvolid=${id}`, ...(access === 'ro' ? ['ro'] : [])];
  return { type: 'btrfs', source: mountOf(directory).source, options };
}

/** The mounts that containerd's own drivers give; `directory` and `above` as the model has them. */
export function expectedMounts(
  driver: DriverName,
  kind: Kind,
  directory: string,
  above: readonly string[],
): readonly Mount[] {
  const access = kind === 'view' ? 'ro' : 'rw';
  if (driver === 'btrfs') return [subvolumeMount(directory, access)];
  if (driver === 'native') {
    const source = kind === 'view' ? (above[0] ?? directory) : directory;
    return [{ type: 'bind', source, options: ['rbind', access] }];
  }
  if (above.length === 0) return [{ type: 'bind', source: directory, options: [access, 'rbind'] }];
  const lower = `lowerdir=${above.join(':')}`;
  if (kind === 'active') {
    const work = directory.replace(/fs$/, 'work');
    const options = [`workdir=${work}`, `upperdir=${directory}`, lower];
    return [{ type: 'overlay', source: 'overlay', options }];
  }
  const [only = ''] = above;
  if (above.length === 1) return [{ type: 'bind', source: only, options: ['ro', 'rbind'] }];
  return [{ type: 'overlay', source: 'overlay', options: [lower] }];
}
