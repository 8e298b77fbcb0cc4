import { OpError, quote } from '../../../base/errors.ts';
import {
  getSubvolInfo,
  KEY,
  qgroupLimit,
  quotaCtlEnableSimple,
  quotaMode,
  TREE,
  treeSearch,
} from '../../linux/btrfs.ts';
import { ERRNO, fromSystemError, isErrno } from '../../linux/errno.ts';
import { close, openDirectory } from '../../linux/files.ts';
import type { QuotaGroup, SubvolumeLimit } from '../../platform.ts';

/** @returns false where quotas are off */
export function limitSubvolume(path: string, { bytes }: SubvolumeLimit): boolean {
  return onDirectory(path, 'limiting', (fd) => qgroupLimit(fd, getSubvolInfo(fd).id, bytes));
}

/** Leaves classic quotas as they are where somebody has chosen those. */
export function enableQuotas(folder: string): void {
  onDirectory(folder, 'switching quotas on for', (fd) => {
    if (quotaMode(fd) !== 'off') return;
    try {
      quotaCtlEnableSimple(fd);
    } catch (error) {
      if (!isErrno(error, ERRNO.EINVAL)) throw error;
      throw new OpError(
        'FailedPrecondition',
        `${folder}: this kernel has no simple quotas (Linux 6.7 or newer has): run "btrfs quota enable" for classic ones and leave out quota = "on"`,
      );
    }
  });
}

/** @throws OpError FailedPrecondition saying how to switch them on */
export function requireQuotas(fd: number, directory: string): void {
  if (quotaMode(fd) !== 'off') return;
  throw new OpError(
    'FailedPrecondition',
    `${directory}: a size limit is asked for, but quotas are off on its file system: run "btrfs quota enable", or set quota = "on" in the config`,
  );
}

/** Of the subvolume that is open; none where quotas are off. */
export function quotaGroupOf(fd: number): QuotaGroup | undefined {
  if (quotaMode(fd) === 'off') return undefined;
  let group: QuotaGroup | undefined;
  const key = [0n, KEY.qgroupInfo, BigInt(getSubvolInfo(fd).id)] as const;
  // struct btrfs_qgroup_info_item
  treeSearch(fd, { tree: TREE.quota, from: key, to: key }, ({ data }) => {
    group = { referenced: data.number(8), exclusive: data.number(24) };
  });
  return group;
}

function onDirectory<T>(path: string, doing: string, action: (fd: number) => T): T {
  try {
    const fd = openDirectory(path);
    try {
      return action(fd);
    } finally {
      close(fd);
    }
  } catch (error) {
    throw fromSystemError(error, `${doing} ${quote(path)}`);
  }
}
