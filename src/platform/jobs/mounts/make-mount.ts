import { mkdirSync, readdirSync, readlinkSync, symlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { OpError, quote } from '../../../base/errors.ts';
import { ERRNO, fromSystemError, isErrno } from '../../linux/errno.ts';
import { close } from '../../linux/files.ts';
import { attachLoop, detachLoop, isLoopNamed } from '../../linux/loop.ts';
import { makePrivate, mount, unmount } from '../../linux/mount.ts';
import { mountPointsBelow } from '../../linux/mount-of.ts';
import type { MountToMake } from '../../platform.ts';
import { never } from '../cancellation.ts';
import type { JobMap } from '../protocol.ts';
import { removeTree } from '../remove-tree.ts';

/** What the kernel answers to a mount that cannot be: the request's fault, not ours. */
const REFUSALS: readonly number[] = [
  ERRNO.EINVAL,
  ERRNO.ENODEV,
  ERRNO.ENOTDIR,
  ERRNO.EBUSY,
  ERRNO.ENXIO,
  ERRNO.ELOOP,
  ERRNO.ENOTBLK,
];

export function makeMount({ folder, mount: made, point }: JobMap['makeMount']['in']): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (made.type === 'loop') attach(made, point);
    else mountAt(made, point);
  } catch (error) {
    const what = `mounting ${quote(made.source)}, type ${quote(made.type)}`;
    if (!isErrno(error, ...REFUSALS)) throw fromSystemError(error, what);
    const reason = error instanceof Error ? error.message : String(error);
    throw new OpError('FailedPrecondition', `${what}: ${reason}`, { cause: error });
  }
}

/** The device is known by its link's name, and stays until it is detached, whoever ends meanwhile. */
function attach({ source, options }: MountToMake, point: string): void {
  const { path, fd } = attachLoop(source, point, {
    readOnly: options.includes('ro'),
    directIo: options.includes('direct-io'),
    autoclear: false,
  });
  try {
    symlinkSync(path, point);
  } catch (error) {
    detachLoop(path, point);
    throw error;
  } finally {
    close(fd);
  }
}

function mountAt({ type, source, options }: MountToMake, point: string): void {
  mkdirSync(point, { mode: 0o700 });
  const isLoop = options.includes('loop');
  if (!isLoop) return mount({ type, source, options }, point);
  const loop = attachLoop(source, point, {
    readOnly: options.includes('ro'),
    directIo: options.includes('direct-io'),
    autoclear: true,
  });
  try {
    const others = options.filter((option) => option !== 'loop' && option !== 'direct-io');
    mount({ type, source: loop.path, options: others }, point);
  } finally {
    close(loop.fd);
  }
}

/** Mounts, and links to devices that are still ours, in all folders of `parent`. */
export function listMounts(parent: string): ReadonlySet<string> {
  try {
    const loops = readdirSync(parent)
      .flatMap((folder) => loopsIn(join(parent, folder)))
      .filter(({ path, point }) => isLoopNamed(path, point));
    return new Set([...mountPointsBelow(parent), ...loops.map(({ point }) => point)]);
  } catch (error) {
    throw fromSystemError(error, `listing the mounts in ${quote(parent)}`);
  }
}

function loopsIn(folder: string): readonly { readonly path: string; readonly point: string }[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isSymbolicLink())
    .map(({ name }) => join(folder, name))
    .map((point) => ({ path: readlinkSync(point), point }));
}

/** What is mounted goes before the devices below it; a crash leaves the rest, to be taken down again. */
export function takeDownMounts(folder: string): void {
  try {
    const points = mountPointsBelow(folder);
    for (const point of points) if (dirname(point) === folder) makePrivate(point);
    for (const point of points.toReversed()) unmount(point);
    for (const { path, point } of loopsIn(folder)) detachLoop(path, point);
    removeTree(folder, never);
  } catch (error) {
    if (isErrno(error, ERRNO.ENOENT)) return;
    if (isErrno(error, ERRNO.EBUSY)) {
      throw new OpError(
        'FailedPrecondition',
        `mounts of activation ${basename(folder)} are in use, below ${quote(folder)}: end what uses them`,
        { cause: error },
      );
    }
    throw fromSystemError(error, `taking down the mounts in ${quote(folder)}`);
  }
}
