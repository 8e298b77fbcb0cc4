import { hash } from 'node:crypto';
import { OpError, quote } from './errors.ts';

declare const digestTag: unique symbol;
/** `algorithm:hex`, checked. Only parseDigest and digestOf make one, so it is safe as a path part. */
export type Digest = string & { readonly [digestTag]: 'Digest' };

/** Length of the hexadecimal part by algorithm; these are the algorithms the content store keeps. */
const HEX_LENGTH = { sha256: 64, sha384: 96, sha512: 128, blake3: 64 } as const;
export type Algorithm = keyof typeof HEX_LENGTH;
export const ALGORITHMS = [
  'sha256',
  'sha384',
  'sha512',
  'blake3',
] as const satisfies readonly Algorithm[];

const isAlgorithm = (text: string): text is Algorithm => Object.hasOwn(HEX_LENGTH, text);

/**
 * Checks a digest from outside.
 * @throws OpError InvalidArgument: unknown algorithm, wrong length, anything but lower-case hex.
 * @see OCI image specification, descriptor.md, "Digests"
 */
export function parseDigest(text: string): Digest {
  const colon = text.indexOf(':');
  const algorithm = text.slice(0, Math.max(colon, 0));
  const hex = text.slice(colon + 1);
  if (!isAlgorithm(algorithm)) {
    throw new OpError(
      'InvalidArgument',
      `digest ${quote(text)}: unknown algorithm, use one of ${ALGORITHMS.join(', ')}`,
    );
  }
  if (hex.length !== HEX_LENGTH[algorithm] || !/^[0-9a-f]+$/.test(hex)) {
    throw new OpError(
      'InvalidArgument',
      `digest ${quote(text)}: expected ${HEX_LENGTH[algorithm]} lower-case hexadecimal digits`,
    );
  }
  return text as Digest;
}

/** A digest from a hash we computed ourselves. */
export const digestOf = (algorithm: Algorithm, hex: string): Digest =>
  parseDigest(`${algorithm}:${hex}`);

export function splitDigest(digest: Digest): { algorithm: Algorithm; hex: string } {
  const colon = digest.indexOf(':');
  return { algorithm: digest.slice(0, colon) as Algorithm, hex: digest.slice(colon + 1) };
}

/**
 * What names a layer on top of others: all diff IDs up to its own go into it.
 * @param below the chain ID of the layers below; undefined for none
 * @see OCI image specification, config.md, "Layer ChainID"
 */
export const chainIdOf = <Id extends string>(below: Id | undefined, diffId: Id): Id | Digest =>
  below === undefined ? diffId : digestOf('sha256', hash('sha256', `${below} ${diffId}`));
