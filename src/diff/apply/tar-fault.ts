import type { ErrorCode } from '../../base/errors.ts';

/** What is wrong with an archive. TarReader adds where that is; none leaves it. */
export class TarFault extends Error {
  override readonly name = 'TarFault';
  readonly code: ErrorCode;
  constructor(message: string, code: ErrorCode = 'InvalidArgument') {
    super(message);
    this.code = code;
  }
}
