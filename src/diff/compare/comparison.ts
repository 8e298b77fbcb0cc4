import { OpError, quote } from '../../base/errors.ts';
import type { Mount } from '../../snapshotters/snapshotter.ts';
import { splitLowers } from '../apply/target.ts';

/** A tree to read. Survives structured cloning. */
export type Root =
  | { readonly kind: 'directory'; readonly path: string }
  /** Directories of overlayfs, the topmost first: two or more. */
  | {
      readonly kind: 'layers';
      readonly paths: readonly string[];
      readonly options: readonly string[];
    }
  | { readonly kind: 'mount'; readonly type: string; readonly options: readonly string[] };

/** What two sets of mounts stand for. Survives structured cloning. */
export interface Comparison {
  readonly upper: Root;
  /** Undefined: there was nothing before. */
  readonly lower: Root | undefined;
  /** Where `upper` is a directory of overlayfs just above `lower`: the prefix of its marks. */
  readonly marks: string | undefined;
}

/**
 * How the trees of two sets of mounts are compared: where one is one layer of overlayfs above the other, by
 * that layer alone; otherwise as a whole.
 * @throws OpError InvalidArgument: no mount of the newer tree; Unimplemented: mounts that are no single tree
 */
export function comparisonOf(older: readonly Mount[], newer: readonly Mount[]): Comparison {
  const above = single(newer);
  if (above === undefined) {
    throw new OpError('InvalidArgument', 'no mount on the right side: nothing to compare');
  }
  const below = single(older);
  const lower = below && rootOf(below);
  const [top, ...rest] = layersOf(above);
  if (above.type === 'overlay' && top !== undefined && areEqual(rest, below && layersOf(below))) {
    const namespace = above.options.includes('userxattr') ? 'user' : 'trusted';
    return { upper: { kind: 'directory', path: top }, lower, marks: `${namespace}.overlay.` };
  }
  return { upper: rootOf(above), lower, marks: undefined };
}

function single(mounts: readonly Mount[]): Mount | undefined {
  if (mounts.length > 1) {
    throw new OpError('Unimplemented', `${mounts.length} mounts on one side: one is compared`);
  }
  const [mount] = mounts;
  if (mount?.type.includes('/') === true) {
    throw new OpError(
      'Unimplemented',
      `mount type ${quote(mount.type)}: is for containerd's manager`,
    );
  }
  const mapping = mount?.options.find((option) => /^[ug]idmap=/.test(option));
  if (mapping !== undefined) {
    throw new OpError(
      'Unimplemented',
      `mount option ${quote(mapping)}: owners are not mapped here`,
    );
  }
  return mount;
}

const isBind = ({ type, options }: Mount): boolean =>
  type === 'bind' || options.includes('bind') || options.includes('rbind');

/** The directories that a mount shows, the topmost first; none where it is a file system by itself. */
function layersOf(mount: Mount): readonly string[] {
  if (isBind(mount)) return [mount.source];
  if (mount.type !== 'overlay') return [];
  const value = (key: string): string | undefined =>
    mount.options.find((option) => option.startsWith(`${key}=`))?.slice(key.length + 1);
  const upper = value('upperdir');
  return [...(upper === undefined ? [] : [upper]), ...splitLowers(value('lowerdir') ?? '')];
}

const areEqual = (a: readonly string[], b: readonly string[] = []): boolean =>
  a.length === b.length && a.every((path, index) => path === b[index]);

/** Of overlayfs, what matters to somebody who only reads. */
const READING_OPTION = /^(?:userxattr|metacopy=|redirect_dir=)/;

function rootOf(mount: Mount): Root {
  const [top, ...rest] = layersOf(mount);
  if (top === undefined) {
    // Whether the file system is read-only is not for us to change.
    const options = mount.options.filter((option) => option !== 'rw' && option !== 'ro');
    return { kind: 'mount', type: mount.type, options: [`source=${mount.source}`, ...options] };
  }
  if (rest.length === 0) return { kind: 'directory', path: top };
  const options = mount.options.filter((option) => READING_OPTION.test(option));
  return { kind: 'layers', paths: [top, ...rest], options };
}
