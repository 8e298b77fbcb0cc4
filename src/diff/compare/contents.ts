import type { Cancellation } from '../../platform/jobs/cancellation.ts';
import { close, read } from '../../platform/linux/files.ts';
import type { Name } from '../apply/names.ts';
import type { Side } from './side.ts';

const PIECE_BYTES = 256 * 1024;

/** Compares the bytes of the files that a name stands for on both sides. */
export class ContentComparer {
  readonly #cancellation: Cancellation;
  readonly #pieces = [Buffer.allocUnsafe(PIECE_BYTES), Buffer.allocUnsafe(PIECE_BYTES)] as const;

  constructor(cancellation: Cancellation) {
    this.#cancellation = cancellation;
  }

  areSame(upper: Side, lower: Side, name: Name): boolean {
    const a = upper.openFile(name);
    try {
      const b = lower.openFile(name);
      try {
        return a.size === b.size && this.#areSame(a.fd, b.fd);
      } finally {
        close(b.fd);
      }
    } finally {
      close(a.fd);
    }
  }

  #areSame(a: number, b: number): boolean {
    for (;;) {
      this.#cancellation.check();
      const [one, other] = this.#pieces;
      const length = fill(a, one);
      if (fill(b, other) !== length || one.compare(other, 0, length, 0, length) !== 0) return false;
      if (length < PIECE_BYTES) return true;
    }
  }
}

/** Up to the end of the file. @returns bytes read */
function fill(fd: number, piece: Buffer): number {
  let length = 0;
  while (length < piece.length) {
    const got = read(fd, piece.subarray(length));
    if (got === 0) break;
    length += got;
  }
  return length;
}
