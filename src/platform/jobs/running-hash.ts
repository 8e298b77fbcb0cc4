import { createHash, type Hash } from 'node:crypto';
import { blake3 } from '@noble/hashes/blake3.js';
import type { Algorithm } from '../../base/digest.ts';

/** A hash that tells its digest at any point and goes on. */
export interface RunningHash {
  update(data: Uint8Array): void;
  /** Hexadecimal digest of all bytes so far. */
  digest(): string;
}

/** node:crypto where OpenSSL has the algorithm, which is several times faster, else @noble/hashes. */
export function startHash(algorithm: Algorithm): RunningHash {
  return algorithm === 'blake3' ? startBlake3() : startNative(createHash(algorithm));
}

function startNative(hash: Hash): RunningHash {
  return {
    update: (data) => {
      hash.update(data);
    },
    digest: () => hash.copy().digest('hex'),
  };
}

function startBlake3(): RunningHash {
  const hash = blake3.create({});
  return {
    update: (data) => {
      hash.update(data);
    },
    digest: () => Buffer.from(hash.clone().digest()).toString('hex'),
  };
}
