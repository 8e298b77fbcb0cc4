import { parseDigest } from '../../base/digest.ts';
import { OpError, quote } from '../../base/errors.ts';
import type { Announced, Info, Status } from '../../content/content.ts';
import { containerd } from '../gen/wire.js';
import { labelsFromWire, labelsToWire } from './labels.ts';
import { timestampFromWire, timestampToWire } from './timestamps.ts';

type WireInfo = containerd.services.content.v1.Info.$Properties;
type WireStatus = containerd.services.content.v1.Status.$Properties;

export const { WriteAction } = containerd.services.content.v1;

export function infoToWire(info: Info): WireInfo {
  return {
    digest: info.digest,
    size: info.size,
    createdAt: timestampToWire(info.createdAt),
    updatedAt: timestampToWire(info.updatedAt),
    labels: labelsToWire(info.labels),
  };
}

/** @throws OpError InvalidArgument without an info, or for its digest */
export function infoFromWire(info: WireInfo | null | undefined): Info {
  if (!info) throw new OpError('InvalidArgument', 'content: the message has no info');
  return {
    digest: parseDigest(info.digest ?? ''),
    size: info.size ?? 0,
    createdAt: timestampFromWire(info.createdAt),
    updatedAt: timestampFromWire(info.updatedAt),
    labels: labelsFromWire(info.labels ?? {}),
  };
}

export function statusToWire(status: Status): WireStatus {
  return {
    ref: status.ref,
    offset: status.offset,
    total: status.total,
    startedAt: timestampToWire(status.startedAt),
    updatedAt: timestampToWire(status.updatedAt),
  };
}

/** @throws OpError InvalidArgument without a status */
export function statusFromWire(status: WireStatus | null | undefined): Status {
  if (!status) throw new OpError('InvalidArgument', 'content: the message has no status');
  return {
    ref: status.ref ?? '',
    offset: status.offset ?? 0,
    total: status.total ?? 0,
    startedAt: timestampFromWire(status.startedAt),
    updatedAt: timestampFromWire(status.updatedAt),
  };
}

/**
 * What a message of a write stream announces; total 0 and an empty digest announce nothing.
 * @throws OpError InvalidArgument for a malformed digest
 */
export function announcedFromWire(message: {
  readonly total: number;
  readonly expected: string;
}): Announced | undefined {
  const { total, expected } = message;
  if (expected !== '') {
    const digest = parseDigest(expected);
    return total > 0 ? { total, expected: digest } : { expected: digest };
  }
  return total > 0 ? { total } : undefined;
}

/** @throws OpError InvalidArgument for an action this version does not know */
export function checkAction(action: number): void {
  if (
    action !== WriteAction.STAT &&
    action !== WriteAction.WRITE &&
    action !== WriteAction.COMMIT
  ) {
    throw new OpError(
      'InvalidArgument',
      `write action ${quote(String(action))}: use STAT (0), WRITE (1) or COMMIT (2)`,
    );
  }
}
