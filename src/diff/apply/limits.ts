/** What an archive may ask for. More than that is refused before anything is kept or made for it. */
export interface TarLimits {
  readonly entriesMax: number;
  /** And whiteouts: of each a little is kept to the end. */
  readonly directoriesMax: number;
  /** Of a name and of a link's target; this bounds the depth of a tree too, at half as many. */
  readonly pathBytesMax: number;
  /** Of all PAX and GNU headers in front of one entry, and of its sparse map: what the reader keeps. */
  readonly extensionBytesMax: number;
  readonly sparseRegionsMax: number;
  /** Of one file, with its holes. */
  readonly fileBytesMax: number;
  /** Of the whole archive, without compression, with what follows its end. */
  readonly plainBytesMax: number;
}

export const TAR_LIMITS: TarLimits = {
  /** Half of the inodes that mkfs.ext4 gives a disk of 128 GiB. */
  entriesMax: 4 << 20,
  /** 64 MB, at 250 bytes each. */
  directoriesMax: 250_000,
  /** PATH_MAX without its NUL: no system call takes more. */
  pathBytesMax: 4095,
  /** As Go's archive/tar, so containerd's. */
  extensionBytesMax: 1 << 20,
  sparseRegionsMax: 1 << 16,
  /** What a file has at most on ext4. A sparse lastlog of large user IDs has more than one TiB. */
  fileBytesMax: 16 * 2 ** 40,
  plainBytesMax: 2 ** 40,
};
