import { OpError, quote } from '../../base/errors.ts';
import type { Labels } from '../../base/labels.ts';

/** What containerd's clients ask for: decimal bytes. */
const MAX_SIZE_LABEL = 'containerd.io/snapshot/max-size';

/** Quotas count in 64 bits. */
const MAX_SIZE = 2n ** 64n - 1n;

/** @throws OpError InvalidArgument for a label that is no number of bytes */
export function maxSizeOf(labels: Labels): bigint | undefined {
  const text = labels.get(MAX_SIZE_LABEL);
  if (text === undefined) return undefined;
  const bytes = /^[0-9]{1,20}$/.test(text) ? BigInt(text) : 0n;
  if (bytes > 0n && bytes <= MAX_SIZE) return bytes;
  throw new OpError(
    'InvalidArgument',
    `label ${MAX_SIZE_LABEL} is ${quote(text)}: must be a number of bytes above 0, in decimal digits`,
  );
}
