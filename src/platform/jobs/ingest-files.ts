import type { Algorithm } from '../../base/digest.ts';
import type { HashedFile, HexDigests } from '../platform.ts';
import type { OpenedFile, Progress } from './hashed-files.ts';
import { Thread } from './thread.ts';

/** From here on handing memory over is cheaper than copying it. */
const TRANSFER_BYTES_MIN = 64 * 1024;
const AROUND_BYTES_MAX = 4096;

interface OpenedHashedFile {
  readonly file: HashedFile;
  readonly size: number;
  readonly digests: HexDigests;
}

/**
 * Files that are open for appending, in a thread of their own: a file stays where its hashes are. One
 * thread hashes and writes faster than the event loop can take messages in.
 */
export class IngestFiles implements AsyncDisposable {
  readonly #entry: string;
  readonly #idleMs: number;
  readonly #sync: Hooks['sync'];
  #thread: Thread | undefined;
  #files = 0;
  #timer: NodeJS.Timeout | undefined;

  /** `sync` flushes an open file elsewhere, so that no append waits for it. */
  constructor(options: {
    readonly entry: string;
    readonly idleMs: number;
    readonly sync: Hooks['sync'];
  }) {
    this.#entry = options.entry;
    this.#idleMs = options.idleMs;
    this.#sync = options.sync;
  }

  async open(path: string, algorithms: readonly Algorithm[]): Promise<OpenedHashedFile> {
    clearTimeout(this.#timer);
    this.#thread ??= new Thread(this.#entry);
    const thread = this.#thread;
    this.#files++;
    let opened: OpenedFile;
    try {
      opened = await thread.run('openFile', { path, algorithms });
    } catch (error) {
      this.#release();
      throw error;
    }
    const hooks = { sync: this.#sync, closed: () => this.#release() };
    const file = new ThreadFile(path, opened, thread, hooks);
    try {
      return { file, size: opened.size, digests: await file.readToEnd(opened.progress) };
    } catch (error) {
      await file[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer);
    await this.#end();
  }

  #release(): void {
    this.#files--;
    if (this.#files > 0) return;
    this.#timer = setTimeout(() => void this.#end(), this.#idleMs).unref();
  }

  async #end(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    await thread?.close();
  }
}

interface Hooks {
  readonly sync: (fd: number, path: string) => Promise<void>;
  readonly closed: () => void;
}

class ThreadFile implements HashedFile {
  readonly #path: string;
  readonly #opened: OpenedFile;
  readonly #thread: Thread;
  readonly #hooks: Hooks;
  #closing: Promise<void> | undefined;

  constructor(path: string, opened: OpenedFile, thread: Thread, hooks: Hooks) {
    this.#path = path;
    this.#opened = opened;
    this.#thread = thread;
    this.#hooks = hooks;
  }

  append(data: Uint8Array): Promise<HexDigests> {
    const transfer = isOnlyUser(data) ? [data.buffer] : [];
    return this.#thread.run('appendToFile', { id: this.#opened.id, data }, transfer);
  }

  truncate(): Promise<HexDigests> {
    return this.#thread.run('truncateFile', { id: this.#opened.id });
  }

  async addAlgorithm(algorithm: Algorithm): Promise<HexDigests> {
    const { id } = this.#opened;
    return this.readToEnd(await this.#thread.run('addFileAlgorithm', { id, algorithm }));
  }

  /** Slice by slice, so that other files get their turn. */
  async readToEnd(progress: Progress): Promise<HexDigests> {
    let latest = progress;
    while (latest.unread > 0) {
      latest = await this.#thread.run('readFileOn', { id: this.#opened.id });
    }
    return latest.digests;
  }

  sync(): Promise<void> {
    return this.#hooks.sync(this.#opened.fd, this.#path);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      await this.#thread.run('closeFile', { id: this.#opened.id });
    } finally {
      this.#hooks.closed();
    }
  }
}

/**
 * Whether the memory may be handed over. A payload is a slice of the message that brought it: the few
 * bytes around it are the message's and have been read. Small or shared buffers are copied.
 */
function isOnlyUser(data: Uint8Array): data is Uint8Array<ArrayBuffer> {
  return (
    data.buffer instanceof ArrayBuffer &&
    data.byteLength >= TRANSFER_BYTES_MIN &&
    data.buffer.byteLength - data.byteLength <= AROUND_BYTES_MAX
  );
}
