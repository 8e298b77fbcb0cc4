import { dirname, join } from 'node:path';
import { OpError, quote } from '../../base/errors.ts';
import { mountDetached } from '../../platform/linux/detached-mount.ts';
import { fromSystemError } from '../../platform/linux/errno.ts';
import { close, openDirectory } from '../../platform/linux/files.ts';
import type { Cancellation } from '../../platform/jobs/cancellation.ts';
import { STAGED } from '../../snapshotters/driver.ts';
import type { Mount } from '../../snapshotters/snapshotter.ts';
import { OverlayTree } from './overlay-tree.ts';
import { PlainTree } from './plain-tree.ts';
import type { Tree } from './tree.ts';

/** Where a layer goes: what mounts of a snapshotter stand for. Survives structured cloning. */
export type Target = TreeTarget | StageTarget;

/** A snapshot of overlay whose parent comes at Commit: layers are staged for it. */
export interface StageTarget {
  readonly kind: 'stage';
  readonly upper: string;
  /** There only if the snapshotter knows what to do with it. */
  readonly staged: string;
}

/** A tree, or the directories of one, to write into. */
export type TreeTarget =
  /** The whole tree is in one directory. */
  | { readonly kind: 'directory'; readonly path: string }
  /** Only `upper` is written to; `lowers`, the nearest first, show through. */
  | {
      readonly kind: 'overlay';
      readonly upper: string;
      readonly lowers: readonly string[];
      readonly xattrPrefix: 'trusted.' | 'user.';
    }
  /** A file system that has to be mounted, which nobody else sees. */
  | { readonly kind: 'mount'; readonly type: string; readonly options: readonly string[] };

/**
 * What a layer can be applied to.
 * @throws OpError InvalidArgument: not one writable tree
 */
export function targetOf(mounts: readonly Mount[]): Target {
  const [mount] = mounts;
  if (mount === undefined || mounts.length > 1) {
    throw new OpError('InvalidArgument', `${mounts.length} mounts: a layer goes to exactly one`);
  }
  const { type, source, options } = mount;
  if (options.includes('ro')) {
    throw new OpError('InvalidArgument', `mount of ${quote(source)}: is read-only`);
  }
  if (type === 'bind' || options.includes('bind') || options.includes('rbind')) {
    return { kind: 'directory', path: source };
  }
  if (type === 'overlay') return overlayTarget(options);
  return {
    kind: 'mount',
    type,
    options: [`source=${source}`, ...options.filter((option) => option !== 'rw')],
  };
}

function overlayTarget(options: readonly string[]): Target {
  const value = (key: string): string | undefined =>
    options.find((option) => option.startsWith(`${key}=`))?.slice(key.length + 1);
  const upper = value('upperdir');
  if (upper === undefined) {
    throw new OpError('InvalidArgument', 'an overlay mount without upperdir is read-only');
  }
  const lowers = value('lowerdir');
  if (lowers === undefined) return { kind: 'stage', upper, staged: join(dirname(upper), STAGED) };
  return {
    kind: 'overlay',
    upper,
    lowers: splitLowers(lowers),
    xattrPrefix: options.includes('userxattr') ? 'user.' : 'trusted.',
  };
}

/** Colons separate, and are escaped inside a path. Documentation/filesystems/overlayfs.rst */
export function splitLowers(text: string): readonly string[] {
  const parts = text.match(/(?:\\.|[^:\\])+/gs) ?? [];
  return parts.map((part) => part.replaceAll(/\\(.)/gs, '$1'));
}

/** What is written to; undefined where nobody sees it. */
export function directoryOf(target: Target): string | undefined {
  switch (target.kind) {
    case 'directory':
      return target.path;
    case 'overlay':
    case 'stage':
      return target.upper;
    case 'mount':
      return undefined;
  }
}

/** @throws OpError NotFound; FailedPrecondition: the kernel does not mount it */
export function openTree(target: TreeTarget, cancellation: Cancellation): Tree {
  switch (target.kind) {
    case 'directory':
      return new PlainTree(openPath(target.path), cancellation);
    case 'overlay': {
      const { upper, lowers, xattrPrefix } = target;
      const opened: number[] = [];
      try {
        for (const path of [upper, ...lowers]) opened.push(openPath(path));
      } catch (error) {
        opened.forEach(close);
        throw error;
      }
      const [root = -1, ...below] = opened;
      return new OverlayTree({ upper: root, lowers: below, xattrPrefix }, cancellation);
    }
    case 'mount':
      try {
        return new PlainTree(mountDetached(target.type, target.options), cancellation);
      } catch (error) {
        throw fromSystemError(error, `mounting ${target.type} with ${target.options.join(',')}`);
      }
  }
}

/** @throws OpError NotFound and the like, naming the path */
export function openPath(path: string): number {
  try {
    return openDirectory(path);
  } catch (error) {
    throw fromSystemError(error, `opening ${quote(path)}`);
  }
}
