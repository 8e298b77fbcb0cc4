import { quote } from '../../../base/errors.ts';
import { getSubvolInfo, SUBVOLUME_ROOT } from '../../linux/btrfs.ts';
import { DT, readDirectory } from '../../linux/directory.ts';
import { fromSystemError } from '../../linux/errno.ts';
import { close, openChildDirectory, openDirectory, Stat } from '../../linux/files.ts';
import type { DirectoryOfSubvolumes } from '../../platform.ts';

/** The directories in a folder, with the subvolumes right inside each. */
export function listSubvolumes(folder: string): readonly DirectoryOfSubvolumes[] {
  try {
    const fd = openDirectory(folder);
    try {
      return directoriesIn(fd).map((name) => ({ name, subvolumes: subvolumesBelow(fd, name) }));
    } finally {
      close(fd);
    }
  } catch (error) {
    throw fromSystemError(error, `listing the subvolumes in ${quote(folder)}`);
  }
}

function directoriesIn(fd: number): readonly string[] {
  const names: string[] = [];
  readDirectory(fd, (name, type) => {
    if (type === DT.directory) names.push(Buffer.from(name.subarray(0, -1)).toString());
    return true;
  });
  return names;
}

function subvolumesBelow(folder: number, directory: string): DirectoryOfSubvolumes['subvolumes'] {
  const fd = openChildDirectory(folder, Buffer.from(`${directory}\0`));
  try {
    return directoriesIn(fd).flatMap((name) => {
      const child = openChildDirectory(fd, Buffer.from(`${name}\0`));
      try {
        if (new Stat().readOpen(child).inode !== SUBVOLUME_ROOT) return [];
        return [{ name, id: getSubvolInfo(child).id }];
      } finally {
        close(child);
      }
    });
  } finally {
    close(fd);
  }
}
