// The ioctls of linux/btrfs.h, under their names. Every one needs CAP_SYS_ADMIN or ownership of what it
// touches; `fd` is any open directory of the file system unless said otherwise.
import { ERRNO, SystemError } from './errno.ts';
import { libc, type Bytes } from './ffi.ts';
import { O } from './files.ts';
import {
  Fields,
  FILE_HANDLE,
  IOCTL,
  QGROUP_LIMIT,
  SEARCH,
  SUBVOL_INFO,
  VOL_ARGS,
} from './btrfs-structs.ts';

/** linux/btrfs_tree.h: trees, and the keys that we look up in them. */
export const TREE = { root: 1, quota: 8 } as const;
export const KEY = {
  inodeItem: 1,
  inodeRef: 12,
  inodeExtref: 13,
  rootBackref: 144,
  rootRef: 156,
  qgroupStatus: 240,
  qgroupInfo: 242,
} as const;

/** BTRFS_FIRST_FREE_OBJECTID: the inode number of every subvolume's root. */
export const SUBVOLUME_ROOT = 256;
export const LAST_OBJECT = 2n ** 64n - 256n;
export const MAX_U64 = 2n ** 64n - 1n;

/** BTRFS_SUBVOL_RDONLY as SETFLAGS and SNAP_CREATE_V2 take it. */
const RDONLY = 1n << 1n;
const SPEC_BY_ID = 1n << 4n;
const QUOTA_CTL_ENABLE_SIMPLE = 4n;
const LIMIT_EXCLUSIVE = 1n << 1n;

const ENOTCONN = 107;

function call(fd: number, request: number, data: Bytes, name: string): void {
  // GET_SUBVOL_INFO says 1 for success.
  if (libc().ioctl(fd, request, data) < 0) throw new SystemError(libc().errno(), name);
}

/** Makes an empty subvolume. Its root has mode 0777 less the umask. Costs no transaction. */
export function subvolCreate(dirfd: number, name: string): void {
  call(dirfd, IOCTL.subvolCreateV2, volumeArguments(name), 'BTRFS_IOC_SUBVOL_CREATE_V2');
}

/**
 * Makes a snapshot of the subvolume that `source` is the open root of. Writes out the source's files
 * first, and is on disk when it returns: the call commits a transaction. Calls of the same moment share
 * that one where each has a directory of its own, as the kernel lets one at a time into a directory.
 */
export function snapCreate(dirfd: number, name: string, source: number, readOnly: boolean): void {
  const data = snapshotArguments(name, source, readOnly);
  call(dirfd, IOCTL.snapCreateV2, data, 'BTRFS_IOC_SNAP_CREATE_V2');
}

/** The same on a thread of libuv's, so that several can wait at once. */
export async function snapCreateAside(
  dirfd: number,
  name: string,
  source: number,
  readOnly: boolean,
): Promise<void> {
  const data = snapshotArguments(name, source, readOnly);
  const errno = await libc().ioctlAside(dirfd, IOCTL.snapCreateV2, data);
  if (errno !== 0) throw new SystemError(errno, 'BTRFS_IOC_SNAP_CREATE_V2');
}

function snapshotArguments(name: string, source: number, readOnly: boolean): Uint8Array {
  const data = volumeArguments(name, readOnly ? RDONLY : 0n);
  new Fields(data).setU64(VOL_ARGS.fd, BigInt(source));
  return data;
}

/** Unlinks a subvolume; the kernel frees its blocks later. ENOTEMPTY while there are others inside. */
export function snapDestroy(dirfd: number, name: string): void {
  call(dirfd, IOCTL.snapDestroyV2, volumeArguments(name), 'BTRFS_IOC_SNAP_DESTROY_V2');
}

/** The same wherever it lies. EROFS where that is in a read-only subvolume. */
export function snapDestroyById(fd: number, subvolumeId: number): void {
  const data = new Uint8Array(VOL_ARGS.size);
  const fields = new Fields(data);
  fields.setU64(VOL_ARGS.flags, SPEC_BY_ID);
  fields.setU64(VOL_ARGS.subvolumeId, BigInt(subvolumeId));
  call(fd, IOCTL.snapDestroyV2, data, 'BTRFS_IOC_SNAP_DESTROY_V2');
}

/** Makes the subvolume whose root is open writable. Commits a transaction where it was not. */
export function subvolSetWritable(root: number): void {
  const data = new Uint8Array(8);
  const fields = new Fields(data);
  call(root, IOCTL.subvolGetFlags, data, 'BTRFS_IOC_SUBVOL_GETFLAGS');
  const flags = fields.u64(0);
  if ((flags & RDONLY) === 0n) return;
  fields.setU64(0, flags & ~RDONLY);
  call(root, IOCTL.subvolSetFlags, data, 'BTRFS_IOC_SUBVOL_SETFLAGS');
}

export interface SubvolumeInfo {
  readonly id: number;
  /** Transaction that last changed it, as far as that is committed. */
  readonly generation: number;
  /** Transaction that made it: what was changed in it since has a later one. */
  readonly madeAt: number;
}

/** Of the subvolume that holds what is open. */
export function getSubvolInfo(fd: number): SubvolumeInfo {
  const data = new Uint8Array(SUBVOL_INFO.size);
  call(fd, IOCTL.getSubvolInfo, data, 'BTRFS_IOC_GET_SUBVOL_INFO');
  const fields = new Fields(data);
  return {
    id: fields.number(SUBVOL_INFO.id),
    generation: fields.number(SUBVOL_INFO.generation),
    madeAt: fields.number(SUBVOL_INFO.madeAt),
  };
}

/**
 * The open root of a subvolume, wherever it lies and whatever it is called: no path that somebody could
 * change meanwhile. Needs CAP_DAC_READ_SEARCH.
 */
export function openSubvolume(fd: number, subvolumeId: number): number {
  const handle = new Uint8Array(FILE_HANDLE.size);
  const fields = new Fields(handle);
  fields.setU32(FILE_HANDLE.bytes, FILE_HANDLE.size - FILE_HANDLE.object);
  fields.setU32(FILE_HANDLE.type, FILE_HANDLE.withoutParent);
  fields.setU64(FILE_HANDLE.object, BigInt(SUBVOLUME_ROOT));
  fields.setU64(FILE_HANDLE.root, BigInt(subvolumeId));
  const opened = libc().openByHandleAt(fd, handle, O.RDONLY | O.DIRECTORY | O.CLOEXEC);
  if (opened < 0) throw new SystemError(libc().errno(), 'open_by_handle_at');
  return opened;
}

/** Commits what runs, without writing out files that are still in memory only. */
export function sync(fd: number): void {
  const data = new Uint8Array(8);
  call(fd, IOCTL.startSync, data, 'BTRFS_IOC_START_SYNC');
  call(fd, IOCTL.waitSync, data, 'BTRFS_IOC_WAIT_SYNC');
}

export interface SearchRange {
  readonly tree: number;
  /** Compound keys: everything from (object, type, offset) to the last such triple, all between included. */
  readonly from: readonly [object: bigint, type: number, offset: bigint];
  readonly to: readonly [object: bigint, type: number, offset: bigint];
  /** Leaves that were written by an earlier transaction are passed over. */
  readonly sinceTransaction?: number;
}

export interface SearchItem {
  readonly object: bigint;
  readonly type: number;
  readonly offset: bigint;
  /** Valid until the next item. */
  readonly data: Fields;
}

/**
 * Visits the items of a tree in the order of their keys; a false stops. A tree that is not there has none.
 */
export function treeSearch(
  fd: number,
  range: SearchRange,
  visit: (item: SearchItem) => boolean | void,
): void {
  const data = spare ?? new Uint8Array(SEARCH.size);
  // A visit may search too.
  spare = undefined;
  try {
    searchInto(data, fd, range, visit);
  } finally {
    spare = data;
  }
}

let spare: Uint8Array | undefined;

function searchInto(
  data: Uint8Array,
  fd: number,
  range: SearchRange,
  visit: (item: SearchItem) => boolean | void,
): void {
  const fields = new Fields(data);
  let [object, type, offset] = range.from;
  for (;;) {
    fields.setU64(SEARCH.tree, BigInt(range.tree));
    fields.setU64(SEARCH.minObject, object);
    fields.setU64(SEARCH.maxObject, range.to[0]);
    fields.setU64(SEARCH.minOffset, offset);
    fields.setU64(SEARCH.maxOffset, range.to[2]);
    fields.setU64(SEARCH.minTransaction, BigInt(range.sinceTransaction ?? 0));
    fields.setU64(SEARCH.maxTransaction, MAX_U64);
    fields.setU32(SEARCH.minType, type);
    fields.setU32(SEARCH.maxType, range.to[1]);
    fields.setU32(SEARCH.items, 0xffff_ffff);
    fields.setU64(SEARCH.bufferSize, BigInt(SEARCH.size - SEARCH.buffer));
    if (libc().ioctl(fd, IOCTL.treeSearchV2, data) < 0) {
      const errno = libc().errno();
      if (errno === ERRNO.ENOENT) return;
      throw new SystemError(errno, 'BTRFS_IOC_TREE_SEARCH_V2');
    }
    const count = fields.u32(SEARCH.items);
    if (count === 0) return;
    let at: number = SEARCH.buffer;
    for (let item = 0; item < count; item++) {
      object = fields.u64(at + SEARCH.headerObject);
      offset = fields.u64(at + SEARCH.headerOffset);
      type = fields.u32(at + SEARCH.headerType);
      const length = fields.u32(at + SEARCH.headerLength);
      const start = at + SEARCH.headerSize;
      const payload = new Fields(data.subarray(start, start + length));
      if (visit({ object, type, offset, data: payload }) === false) return;
      at = start + length;
    }
    // The next key: offset is the least significant part, then type, then object.
    if (offset < MAX_U64) offset += 1n;
    else if (type < 255) [type, offset] = [type + 1, 0n];
    else if (object < MAX_U64) [object, type, offset] = [object + 1n, 0, 0n];
    else return;
  }
}

export type QuotaMode = 'off' | 'classic' | 'simple';

/** BTRFS_QGROUP_STATUS_FLAG_ON and _SIMPLE_MODE; the quota tree exists only while quotas are on. */
export function quotaMode(fd: number): QuotaMode {
  let flags = 0n;
  const key: SearchRange['from'] = [0n, KEY.qgroupStatus, 0n];
  treeSearch(fd, { tree: TREE.quota, from: key, to: key }, ({ data }) => {
    flags = data.u64(16);
  });
  if ((flags & 1n) === 0n) return 'off';
  return (flags & 8n) === 0n ? 'classic' : 'simple';
}

/** Simple quotas, which Linux knows since 6.7. */
export function quotaCtlEnableSimple(fd: number): void {
  const data = new Uint8Array(16);
  new Fields(data).setU64(0, QUOTA_CTL_ENABLE_SIMPLE);
  call(fd, IOCTL.quotaCtl, data, 'BTRFS_IOC_QUOTA_CTL');
}

/**
 * Limits what a subvolume has to itself alone; with simple quotas that is what was written into it.
 * @returns false where quotas are off
 */
export function qgroupLimit(fd: number, subvolumeId: number, exclusiveMax: bigint): boolean {
  const data = new Uint8Array(QGROUP_LIMIT.size);
  const fields = new Fields(data);
  fields.setU64(QGROUP_LIMIT.group, BigInt(subvolumeId));
  fields.setU64(QGROUP_LIMIT.flags, LIMIT_EXCLUSIVE);
  fields.setU64(QGROUP_LIMIT.exclusive, exclusiveMax);
  if (libc().ioctl(fd, IOCTL.qgroupLimit, data) >= 0) return true;
  const errno = libc().errno();
  if (errno === ENOTCONN) return false;
  throw new SystemError(errno, 'BTRFS_IOC_QGROUP_LIMIT');
}

function volumeArguments(name: string, flags = 0n): Uint8Array {
  const data = new Uint8Array(VOL_ARGS.size);
  const bytes = Buffer.from(name);
  if (bytes.length > VOL_ARGS.nameMax) throw new SystemError(ERRNO.ENAMETOOLONG, 'ioctl');
  data.set(bytes, VOL_ARGS.name);
  new Fields(data).setU64(VOL_ARGS.flags, flags);
  return data;
}
