import { constants, open, type FileHandle } from 'node:fs/promises';
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { syncfsAsync } from '../linux/files.ts';

/** Tells of it from the thread that writes, by a message without content. */
export type Grown = Pick<MessagePort, 'postMessage'>;

/**
 * Brings to the disk what is there so far of something large while more of it is written, one flush at a time: the sync
 * at its end, for which somebody waits, finds little left then. That one tells whether all went well; errors of these are
 * its own too, where its descriptor was opened before anything was written.
 */
export class FlushBehind implements Disposable {
  /** A `Grown` for another thread. */
  readonly port: MessagePort;
  readonly #port: MessagePort;
  readonly #opening: Promise<FileHandle | undefined>;
  #flushing: Promise<void> | undefined;

  /** @param path the directory that is written to; undefined where it has none: then nothing is flushed behind */
  constructor(path: string | undefined) {
    const { port1, port2 } = new MessageChannel();
    this.port = port2;
    this.#port = port1.on('message', () => {
      this.#flushing ??= this.#flush().finally(() => (this.#flushing = undefined));
    });
    this.#opening =
      path === undefined ? Promise.resolve(undefined) : open(path, constants.O_DIRECTORY);
    this.#opening.catch(() => undefined);
  }

  /** Nobody waits for a flush that has begun. */
  [Symbol.dispose](): void {
    this.#port.close();
    void this.#close();
  }

  async #flush(): Promise<void> {
    try {
      const directory = await this.#opening;
      if (directory !== undefined) await syncfsAsync(directory.fd);
    } catch {
      // Who writes meets it too.
    }
  }

  async #close(): Promise<void> {
    await this.#flushing;
    await (await this.#opening.catch(() => undefined))?.close();
  }
}
