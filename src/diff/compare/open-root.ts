import { quote } from '../../base/errors.ts';
import { mountDetached } from '../../platform/linux/detached-mount.ts';
import { ERRNO, fromSystemError, isErrno } from '../../platform/linux/errno.ts';
import { openDirectory } from '../../platform/linux/files.ts';
import type { Root } from './comparison.ts';

/**
 * Opens the root directory of a tree for reading; what has to be mounted is seen by nobody else, and gone
 * with the last descriptor in it.
 * @throws OpError NotFound; what the kernel says of a mount
 */
export function openRoot(root: Root): number {
  switch (root.kind) {
    case 'directory':
      return opening(quote(root.path), () => openDirectory(root.path));
    case 'layers':
      return opening(`an overlay of ${root.paths.join(':')}`, () =>
        mountLayers(root.paths, root.options),
      );
    case 'mount':
      return opening(`${root.type} with ${root.options.join(',')}`, () =>
        mountDetached(root.type, root.options, true),
      );
  }
}

/** Layers one by one, as the kernel takes at most 255 bytes at once; before Linux 6.7 it has to be that. */
function mountLayers(paths: readonly string[], options: readonly string[]): number {
  const layers = paths.map((path) => `lowerdir+=${path}`);
  try {
    return mountDetached('overlay', [...layers, ...options], true);
  } catch (error) {
    if (!isErrno(error, ERRNO.EINVAL)) throw error;
    const joined = paths.map((path) => path.replaceAll(/[:\\]/g, String.raw`\$&`)).join(':');
    return mountDetached('overlay', [`lowerdir=${joined}`, ...options], true);
  }
}

function opening(what: string, open: () => number): number {
  try {
    return open();
  } catch (error) {
    throw fromSystemError(error, `opening ${what}`);
  }
}
