import { TYPE, type Stat } from '../../platform/linux/files.ts';
import type { Time } from '../apply/pax-records.ts';

export type NodeType =
  | 'directory'
  | 'file'
  | 'symlink'
  | 'character-device'
  | 'block-device'
  | 'fifo'
  | 'socket';

/** What lstat(2) tells of a name. */
export interface Node {
  readonly type: NodeType;
  /** Permissions, set-id and sticky bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: Time;
  /** Of devices; 0 for all others. */
  readonly major: number;
  readonly minor: number;
  /** How many names the inode has. */
  readonly links: number;
  /** Of the inode: equal for two names of one file. */
  readonly identity: string;
}

const TYPES: ReadonlyMap<number, NodeType> = new Map([
  [TYPE.directory, 'directory'],
  [TYPE.file, 'file'],
  [TYPE.link, 'symlink'],
  [TYPE.characterDevice, 'character-device'],
  [TYPE.blockDevice, 'block-device'],
  [TYPE.fifo, 'fifo'],
]);

const MODE = 0o7777;

export function nodeOf(stat: Stat): Node {
  const type = TYPES.get(stat.mode & TYPE.mask) ?? 'socket';
  const isDevice = type === 'character-device' || type === 'block-device';
  const { modified } = stat;
  return {
    type,
    mode: stat.mode & MODE,
    uid: stat.uid,
    gid: stat.gid,
    size: stat.size,
    mtime: {
      seconds: Number(modified.readBigInt64LE(0)),
      nanoseconds: modified.readUInt32LE(8),
    },
    major: isDevice ? stat.deviceMajor : 0,
    minor: isDevice ? stat.deviceMinor : 0,
    links: stat.links,
    identity: stat.identity,
  };
}

/** Overlayfs's mark of a removed name. Elsewhere it is nothing either: no layer can hold it. */
export const isWhiteout = ({ type, major, minor }: Node): boolean =>
  type === 'character-device' && major === 0 && minor === 0;

/** Type, permissions, owner and device number. */
export const haveSameAttributes = (a: Node, b: Node): boolean =>
  a.type === b.type &&
  a.mode === b.mode &&
  a.uid === b.uid &&
  a.gid === b.gid &&
  a.major === b.major &&
  a.minor === b.minor;

export const isSameTime = (a: Time, b: Time): boolean =>
  a.seconds === b.seconds && a.nanoseconds === b.nanoseconds;
