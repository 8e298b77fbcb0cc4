// Layouts of linux/btrfs.h: offsets in bytes. Arguments are in the machine's order, what is stored in
// trees is little-endian; Node runs on little-endian machines only, save s390x, where btrfs is rare.

/** Request numbers: direction, size of the argument, the letter 0x94, number. asm-generic/ioctl.h */
export const IOCTL = {
  waitSync: 0x4008_9416,
  snapCreateV2: 0x5000_9417,
  subvolCreateV2: 0x5000_9418,
  startSync: 0x8008_9418,
  subvolGetFlags: 0x8008_9419,
  subvolSetFlags: 0x4008_941a,
  treeSearchV2: 0xc070_9411,
  quotaCtl: 0xc010_9428,
  qgroupLimit: 0x8030_942b,
  getSubvolInfo: 0x81f8_943c,
  snapDestroyV2: 0x5000_943f,
} as const;

/** struct btrfs_ioctl_vol_args_v2 */
export const VOL_ARGS = {
  fd: 0,
  flags: 16,
  name: 56,
  subvolumeId: 56,
  nameMax: 255,
  size: 4096,
} as const;

/** struct btrfs_ioctl_get_subvol_info_args */
export const SUBVOL_INFO = { id: 0, generation: 280, madeAt: 352, size: 504 } as const;

/** struct btrfs_ioctl_qgroup_limit_args */
export const QGROUP_LIMIT = { group: 0, flags: 8, exclusive: 24, size: 48 } as const;

/** struct file_handle around struct btrfs_fid; a generation of 0 fits any inode. */
export const FILE_HANDLE = {
  bytes: 0,
  type: 4,
  object: 8,
  root: 16,
  size: 28,
  /** FILEID_BTRFS_WITHOUT_PARENT */
  withoutParent: 0x4d,
} as const;

/** struct btrfs_ioctl_search_args_v2, the results behind it, and struct btrfs_ioctl_search_header. */
export const SEARCH = {
  tree: 0,
  minObject: 8,
  maxObject: 16,
  minOffset: 24,
  maxOffset: 32,
  minTransaction: 40,
  maxTransaction: 48,
  minType: 56,
  maxType: 60,
  items: 64,
  bufferSize: 104,
  buffer: 112,
  headerObject: 8,
  headerOffset: 16,
  headerType: 24,
  headerLength: 28,
  headerSize: 32,
  /** Items of the largest node, 64 KiB, must fit. */
  size: 112 + 128 * 1024,
} as const;

/** Numbers in a structure. */
export class Fields {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u16(at: number): number {
    return this.#view.getUint16(at, true);
  }
  u32(at: number): number {
    return this.#view.getUint32(at, true);
  }
  u64(at: number): bigint {
    return this.#view.getBigUint64(at, true);
  }
  /** For ids, transactions and inode numbers: the kernel counts them up from nothing. */
  number(at: number): number {
    return Number(this.u64(at));
  }
  text(at: number, length: number): string {
    return Buffer.from(this.#bytes.subarray(at, at + length)).toString();
  }
  setU32(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }
  setU64(at: number, value: bigint): void {
    this.#view.setBigUint64(at, value, true);
  }
}
