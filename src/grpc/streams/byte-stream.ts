import { messageOf, OpError } from '../../base/errors.ts';
import type { Any } from '../../events/event.ts';
import type { Stream } from '../../streams/stream.ts';
import { containerd } from '../gen/wire.js';

const { Data, WindowUpdate } = containerd.types.transfer;

const PACKAGE = 'containerd.types.transfer.';

/** How much a client may send unasked; containerd's own windows, of 64 KiB, make it wait more often. */
const RECEIVE_WINDOW_BYTES = 1 << 20;

/** What containerd's clients open their window by, each time that less than this is left of it. */
const CLIENT_WINDOW_BYTES = 64 * 1024;

/** How long a client that has got everything may take to say so; it need not. */
const FAREWELL_MS = 1000;

/**
 * The bytes that a client sends, not faster than they are asked for. Ending the iteration early lets the
 * client go on in vain: nobody is told that somebody stopped listening.
 * @throws OpError Canceled: the client is gone, or the stream was closed; InvalidArgument: a message is malformed, or
 * more than the client may send
 */
export async function* receiveBytes(stream: Stream): AsyncIterable<Uint8Array> {
  let isOver = false;
  let window = 0;
  const next = async (): Promise<Any | undefined> => {
    if (window < RECEIVE_WINDOW_BYTES) {
      await stream.send(updateMessage(RECEIVE_WINDOW_BYTES));
      window += RECEIVE_WINDOW_BYTES;
    }
    const message = await stream.receive();
    isOver = message === undefined;
    return message;
  };
  try {
    for (let message = await next(); message !== undefined; message = await next()) {
      const data = dataOf(message);
      if (data.length > window) {
        throw new OpError(
          'InvalidArgument',
          `the client sent ${data.length} bytes at once, its window had ${window}`,
        );
      }
      window -= data.length;
      if (data.length > 0) yield data;
    }
  } finally {
    if (!isOver) void passOver(next);
  }
}

/** Until the client has sent everything, or the stream ends. */
async function passOver(next: () => Promise<Any | undefined>): Promise<void> {
  try {
    while ((await next()) !== undefined);
  } catch {
    // It has ended.
  }
}

/**
 * Sends bytes, not more than the client takes, in messages as large as its window: containerd's clients open
 * theirs again after each of these, and so tell what they have read.
 */
export class ByteSender {
  readonly #stream: Stream;
  #message = Buffer.allocUnsafeSlow(CLIENT_WINDOW_BYTES);
  #used = 0;
  /** What the client takes at the moment. */
  #window = 0;
  /** The client opens its window no more. */
  #isOver = false;
  #wake: (() => void) | undefined;

  constructor(stream: Stream) {
    this.#stream = stream;
    void this.#receive();
  }

  /**
   * Copies the bytes.
   * @throws OpError Canceled: the client is gone, or takes no more
   */
  async write(bytes: Uint8Array): Promise<void> {
    for (let rest = bytes; rest.length > 0;) {
      const part = rest.subarray(0, CLIENT_WINDOW_BYTES - this.#used);
      this.#message.set(part, this.#used);
      this.#used += part.length;
      if (this.#used === CLIENT_WINDOW_BYTES) await this.#flush();
      rest = rest.subarray(part.length);
    }
  }

  /**
   * Sends the rest, and resolves when the client has read it: the program may end with the answer to its
   * request, whatever of the stream it has in its buffers then.
   * @throws OpError as write
   */
  async finish(): Promise<void> {
    await this.#flush();
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, FAREWELL_MS);
    const isRead = async (): Promise<void> => {
      while (this.#window < CLIENT_WINDOW_BYTES && !this.#isOver) await this.#change();
    };
    try {
      await Promise.race([late, isRead()]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #flush(): Promise<void> {
    for (let sent = 0; sent < this.#used;) {
      while (this.#window === 0) {
        if (this.#isOver) throw new OpError('Canceled', 'the client takes no more of the archive');
        await this.#change();
      }
      const data = this.#message.subarray(sent, Math.min(this.#used, sent + this.#window));
      this.#window -= data.length;
      sent += data.length;
      await this.#stream.send(dataMessage(data));
    }
    this.#used = 0;
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        const message = await this.#stream.receive();
        if (message === undefined) break;
        this.#window += updateOf(message);
        this.#wake?.();
      }
    } catch {
      // What was to be sent fails for the same reason.
    }
    this.#isOver = true;
    this.#wake?.();
  }
}

const dataMessage = (data: Uint8Array): Any => ({
  typeUrl: `${PACKAGE}Data`,
  value: Data.encode({ data }).finish(),
});

const updateMessage = (update: number): Any => ({
  typeUrl: `${PACKAGE}WindowUpdate`,
  value: WindowUpdate.encode({ update }).finish(),
});

/** Messages of other types mean nothing here, as with containerd. @throws OpError InvalidArgument */
function dataOf({ typeUrl, value }: Any): Uint8Array {
  if (!typeUrl.endsWith(`${PACKAGE}Data`)) return NOTHING;
  return decoded(() => Data.decode(value).data);
}

/** @throws OpError InvalidArgument */
function updateOf({ typeUrl, value }: Any): number {
  if (!typeUrl.endsWith(`${PACKAGE}WindowUpdate`)) return 0;
  return Math.max(
    0,
    decoded(() => WindowUpdate.decode(value).update),
  );
}

const NOTHING = new Uint8Array(0);

function decoded<T>(decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw new OpError(
      'InvalidArgument',
      `a message of the stream is malformed: ${messageOf(error)}`,
    );
  }
}
