import { parseDigest } from '../../base/digest.ts';
import { OpError } from '../../base/errors.ts';
import type { Image, ImageUpdate, Target } from '../../images/image.ts';
import type { containerd } from '../gen/wire.js';
import { labelsFromWire, labelsToWire } from './labels.ts';
import { timestampToWire } from './timestamps.ts';

type WireImage = containerd.services.images.v1.Image.$Properties;
type WireDescriptor = containerd.types.Descriptor.$Properties;

export function imageToWire({ name, labels, target, createdAt, updatedAt }: Image): WireImage {
  const { mediaType, digest, size, annotations } = target;
  return {
    name,
    labels: labelsToWire(labels),
    target: { mediaType, digest, size, annotations: labelsToWire(annotations) },
    createdAt: timestampToWire(createdAt),
    updatedAt: timestampToWire(updatedAt),
  };
}

/** @throws OpError InvalidArgument without an image, or for the target's digest */
export function imageFromWire(image: WireImage | null | undefined): ImageUpdate {
  if (!image) throw new OpError('InvalidArgument', 'the request has no image');
  const { name, labels, target } = image;
  return {
    name: name ?? '',
    labels: labelsFromWire(labels ?? {}),
    // Clients that change labels only send one that is empty.
    target: target && (target.digest ?? '') !== '' ? targetFromWire(target) : undefined,
  };
}

/** @throws OpError InvalidArgument for its digest */
const targetFromWire = ({ mediaType, digest, size, annotations }: WireDescriptor): Target => ({
  mediaType: mediaType ?? '',
  digest: parseDigest(digest ?? ''),
  size: size ?? 0,
  annotations: labelsFromWire(annotations ?? {}),
});
