import { messageOf, OpError } from '../base/errors.ts';
import { isDiskFull } from '../platform/linux/errno.ts';

/** The message of the system's error that level wraps in its own. */
export const systemMessageOf = (error: unknown): string =>
  messageOf(error instanceof Error && error.cause !== undefined ? error.cause : error);

/** Also of level's errors, which have no errno. */
export const isFull = (error: unknown): boolean =>
  isDiskFull(error) || /no space left on device|disk quota exceeded/i.test(systemMessageOf(error));

export class DiskFull extends OpError {
  constructor(path: string) {
    super(
      'ResourceExhausted',
      `no space left on device for ${path}: remove snapshots or blobs first`,
    );
  }
}
