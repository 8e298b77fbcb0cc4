import type { Name } from '../apply/names.ts';
import type { Time } from '../apply/pax-records.ts';
import type { NodeType } from './node.ts';
import type { Xattrs } from './xattrs.ts';

/** One entry of a layer's archive. */
export interface LayerEntry {
  readonly type: Exclude<NodeType, 'socket'> | 'hardlink';
  /** Below the root; a directory's ends in a slash. */
  readonly path: Name;
  /** Of a symlink its target, of a hard link the path of the first name; else empty. */
  readonly link: Name;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: Time;
  readonly major: number;
  readonly minor: number;
  readonly xattrs: Xattrs;
}
