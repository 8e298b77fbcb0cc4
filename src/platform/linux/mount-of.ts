import { readFileSync } from 'node:fs';
import { OpError, quote } from '../../base/errors.ts';
import { fromSystemError } from './errno.ts';
import { close, O, open } from './files.ts';

export interface MountOf {
  /** Of the file system, as in /proc/filesystems. */
  readonly type: string;
  /** What was mounted: a device's path, for file systems that have one. */
  readonly source: string;
}

/**
 * The mount that a path lies on, found by its id rather than by comparing paths: over-mounts, bind
 * mounts and links do not matter. proc_pid_mountinfo(5), proc_pid_fdinfo(5)
 */
export function mountOf(path: string): MountOf {
  try {
    const id = mountIdOf(path);
    for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
      const [left = '', right = ''] = line.split(' - ');
      if (left.slice(0, left.indexOf(' ')) !== id) continue;
      const [type = '', source = ''] = right.split(' ');
      return { type, source: unescape(source) };
    }
  } catch (error) {
    throw fromSystemError(error, `looking for the mount of ${quote(path)}`);
  }
  throw new OpError('FailedPrecondition', `${path}: its mount is not in /proc/self/mountinfo`);
}

/** Where something is mounted below the folder, in the order in which it was. */
export function mountPointsBelow(folder: string): readonly string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => unescape(line.split(' ')[4] ?? ''))
    .filter((point) => point.startsWith(`${folder}/`));
}

function mountIdOf(path: string): string {
  const fd = open(path, O.PATH);
  try {
    const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8');
    return /^mnt_id:\s*(\d+)$/m.exec(info)?.[1] ?? '';
  } finally {
    close(fd);
  }
}

/** Space, tab, newline and backslash are written as three octal digits. */
const unescape = (text: string): string =>
  text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
