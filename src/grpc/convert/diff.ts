import { parseDigest } from '../../base/digest.ts';
import { OpError } from '../../base/errors.ts';
import type { Descriptor } from '../../diff/diff.ts';
import type { containerd } from '../gen/wire.js';

type WireDescriptor = containerd.types.Descriptor.$Properties;

/** @throws OpError InvalidArgument without a descriptor, or for its digest */
export function descriptorFromWire(wire: WireDescriptor | null | undefined): Descriptor {
  if (!wire) throw new OpError('InvalidArgument', 'the message has no descriptor');
  return {
    mediaType: wire.mediaType ?? '',
    digest: parseDigest(wire.digest ?? ''),
    size: wire.size ?? 0,
  };
}

export const descriptorToWire = ({ mediaType, digest, size }: Descriptor): WireDescriptor => ({
  mediaType,
  digest,
  size,
});
