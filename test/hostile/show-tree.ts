import { mountDetached } from '../../src/platform/linux/detached-mount.ts';
import { close } from '../../src/platform/linux/files.ts';
import type { Mount } from '../../src/snapshotters/snapshotter.ts';

/** What a snapshot's mounts show, at a path that other processes can read while it is not disposed. */
export function showTree(mounts: readonly Mount[]): Disposable & { readonly path: string } {
  const [mount] = mounts;
  if (mount === undefined) throw new Error('no mounts');
  const { type, source, options } = mount;
  if (type === 'bind') return { path: source, [Symbol.dispose]: () => undefined };
  const fd =
    type === 'overlay'
      ? mountDetached('overlay', options.flatMap(separated))
      : mountDetached(type, [`source=${source}`, ...options]);
  return { path: `/proc/${process.pid}/fd/${fd}/.`, [Symbol.dispose]: () => close(fd) };
}

/** All lower directories of 130 layers are more than one option holds. */
function separated(option: string): readonly string[] {
  if (!option.startsWith('lowerdir=')) return [option];
  return option
    .slice('lowerdir='.length)
    .split(':')
    .map((path) => `lowerdir+=${path}`);
}
