import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { release } from 'node:os';
import { join } from 'node:path';
import { pathExists } from 'fs-extra/esm';
import { OpError } from '../../base/errors.ts';
import { isDiskFull } from '../../platform/linux/errno.ts';
import type { Linux } from '../../platform/platform.ts';

/** What this kernel and file system let the driver do. */
export interface OverlayProbe {
  readonly needsUserXattr: boolean;
  readonly knowsIndex: boolean;
}

/**
 * @throws OpError FailedPrecondition saying why overlay cannot work on `root`
 */
export async function probeOverlay(root: string, linux: Linux): Promise<OverlayProbe> {
  if (!linux.supportsDType(root)) {
    throw new OpError(
      'FailedPrecondition',
      `${root}: its file system does not report file types (d_type), which overlay needs: use ext4, btrfs, or xfs made with ftype=1`,
    );
  }
  const knowsIndex = await pathExists('/sys/module/overlay/parameters/index');
  let folder: string | undefined;
  try {
    folder = await mkdtemp(join(root, 'probe-'));
    const [lower, upper, work] = await makeDirectories(folder);
    const works = (options: readonly string[]): boolean =>
      linux.canMountOverlay({ lower, upper, work, options });
    const needsUserXattr = inUserNamespace() && works(['userxattr']);
    if (!needsUserXattr && !works([])) {
      throw new OpError(
        'FailedPrecondition',
        `${root}: this kernel cannot mount overlay there (a root on overlay itself, or no overlay module): use another root or the native driver`,
      );
    }
    return { needsUserXattr, knowsIndex };
  } catch (error) {
    // What is stored on a full disk must stay readable and removable: an earlier start has probed it.
    if (isDiskFull(error)) return { needsUserXattr: inUserNamespace(), knowsIndex };
    throw error;
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}

async function makeDirectories(folder: string): Promise<readonly [string, string, string]> {
  const paths = [join(folder, 'lower'), join(folder, 'upper'), join(folder, 'work')] as const;
  for (const path of paths) await mkdir(path);
  return paths;
}

/** Linux 5.19 is the first that lets overlay stand on id-mapped mounts. */
export function mapsIds(): boolean {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  return major > 5 || (major === 5 && minor >= 19);
}

/** The initial user namespace maps all ids one to one. @see user_namespaces(7), uid_map */
export function inUserNamespace(): boolean {
  // Made up by the kernel: no disk is waited for.
  const map = readFileSync('/proc/self/uid_map', 'utf8');
  return map.trim().split(/\s+/).join(' ') !== '0 0 4294967295';
}
