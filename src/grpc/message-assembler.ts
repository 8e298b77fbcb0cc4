import { OpError } from '../base/errors.ts';
import { MESSAGE_BYTES_MAX } from './limits.ts';

/** A flag and a length of 32 bits precede each message. */
export const PREFIX_BYTES = 5;
/** Larger messages get memory of their own; Node shares its pool among smaller ones. */
const POOLED_BYTES_MAX = 4096;

/** Makes messages of the chunks of a stream, each copied once, into memory of the message's own. */
export class MessageAssembler {
  readonly #prefix = Buffer.allocUnsafe(PREFIX_BYTES);
  #prefixBytes = 0;
  #message: Buffer | undefined;
  #messageBytes = 0;
  readonly #mayShareChunk: boolean;

  /** @param mayShareChunk a message that lies in one chunk is a view of it, and keeps it in memory */
  constructor(mayShareChunk: boolean) {
    this.#mayShareChunk = mayShareChunk;
  }

  /** Whether the stream may end here: no message has begun. */
  get isEmpty(): boolean {
    return this.#prefixBytes === 0;
  }

  /**
   * The messages that `chunk` completes.
   * @throws OpError ResourceExhausted too long; Unimplemented compressed
   */
  add(chunk: Buffer): readonly Buffer[] {
    const messages: Buffer[] = [];
    let position = 0;
    while (position < chunk.length) {
      if (this.#message === undefined) {
        position += this.#readPrefix(chunk, position);
        if (this.#prefixBytes < PREFIX_BYTES) break;
        const length = this.#checkedLength();
        if (this.#mayShareChunk && chunk.length - position >= length) {
          messages.push(chunk.subarray(position, position + length));
          position += length;
          this.#prefixBytes = 0;
          continue;
        }
        this.#message =
          length > POOLED_BYTES_MAX ? Buffer.allocUnsafeSlow(length) : Buffer.allocUnsafe(length);
        this.#messageBytes = 0;
      }
      const taken = chunk.copy(this.#message, this.#messageBytes, position);
      position += taken;
      this.#messageBytes += taken;
      if (this.#messageBytes < this.#message.length) break;
      messages.push(this.#message);
      this.#message = undefined;
      this.#prefixBytes = 0;
    }
    return messages;
  }

  #readPrefix(chunk: Buffer, position: number): number {
    const read = chunk.copy(this.#prefix, this.#prefixBytes, position);
    this.#prefixBytes += read;
    return read;
  }

  #checkedLength(): number {
    if (this.#prefix[0] !== 0) {
      throw new OpError('Unimplemented', 'compressed messages are not supported: send identity');
    }
    const length = this.#prefix.readUInt32BE(1);
    if (length > MESSAGE_BYTES_MAX) {
      throw new OpError(
        'ResourceExhausted',
        `the request has ${length} bytes, a message at most ${MESSAGE_BYTES_MAX}`,
      );
    }
    return length;
  }
}
