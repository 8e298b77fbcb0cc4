import { OpError } from '../base/errors.ts';
import type { Gc } from '../gc/gc.ts';

/** Behind a plugin socket: images and leases, which keep everything, are containerd's. */
export const containerdCollects: Gc = {
  run: () =>
    Promise.reject(
      new OpError(
        'FailedPrecondition',
        'containerd decides what is collected on a plugin socket: it collects by its own schedule, or when `ctr content prune references` asks it to',
      ),
    ),
};
