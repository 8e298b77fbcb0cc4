import { OpError, quote } from '../base/errors.ts';
import type { ListedMount } from './mount.ts';

const PREFIX = 'X-containerd.mkdir.';

export interface WantedDirectory {
  readonly path: string;
  readonly mode: number;
  /** 0 by default, as what we make is root's. */
  readonly uid: number;
  readonly gid: number;
}

/**
 * The mount without the options `X-containerd.mkdir.path=PATH[:MODE[:UID:GID]]`, and the directories that
 * they want, in order.
 * @throws OpError InvalidArgument
 */
export function mkdir(mount: ListedMount): {
  readonly mount: ListedMount;
  readonly directories: readonly WantedDirectory[];
} {
  const isOurs = (option: string): boolean => option.startsWith(PREFIX);
  return {
    mount: { ...mount, options: mount.options.filter((option) => !isOurs(option)) },
    directories: mount.options.filter(isOurs).map(directoryOf),
  };
}

function directoryOf(option: string): WantedDirectory {
  const { path, mode, uid, gid } =
    /^path=(?<path>\/[^:]*)(?::(?<mode>[0-7]{1,3}|0[0-7]{3})(?::(?<uid>\d{1,10}):(?<gid>\d{1,10}))?)?$/.exec(
      option.slice(PREFIX.length),
    )?.groups ?? {};
  if (path === undefined) {
    throw new OpError(
      'InvalidArgument',
      `option ${quote(option)}: use ${PREFIX}path=PATH, with :MODE or :MODE:UID:GID behind it`,
    );
  }
  return {
    path,
    mode: parseInt(mode ?? '700', 8),
    uid: Number(uid ?? 0),
    gid: Number(gid ?? 0),
  };
}
