import type { Algorithm } from '../../base/digest.ts';
import type { HashedFile, HexDigests } from '../platform.ts';
import type { OpenedFile } from './hashed-files.ts';
import { Thread } from './thread.ts';

/** Two cores' worth: the rest of the machine is the event loop's and the containers'. */
const THREADS_MAX = 2;

/** From here on handing memory over is cheaper than copying it. */
const TRANSFER_BYTES_MIN = 64 * 1024;

interface Owner {
  readonly thread: Thread;
  files: number;
  timer: NodeJS.Timeout | undefined;
}

interface OpenedHashedFile {
  readonly file: HashedFile;
  readonly size: number;
  readonly digests: HexDigests;
}

/** Threads that keep files open; a file stays with the thread that holds its hashes. */
export class IngestFiles implements AsyncDisposable {
  readonly #entry: string;
  readonly #idleMs: number;
  readonly #sync: (fd: number, path: string) => Promise<void>;
  readonly #owners = new Set<Owner>();

  /** `sync` flushes an open file elsewhere, so that no append waits for it. */
  constructor(options: {
    readonly entry: string;
    readonly idleMs: number;
    readonly sync: (fd: number, path: string) => Promise<void>;
  }) {
    this.#entry = options.entry;
    this.#idleMs = options.idleMs;
    this.#sync = options.sync;
  }

  async open(path: string, algorithms: readonly Algorithm[]): Promise<OpenedHashedFile> {
    const owner = this.#choose();
    owner.files++;
    try {
      const opened = await owner.thread.run('openFile', { path, algorithms });
      const file = new ThreadFile(path, opened, owner.thread, {
        sync: this.#sync,
        closed: () => this.#release(owner),
      });
      return { file, size: opened.size, digests: opened.digests };
    } catch (error) {
      this.#release(owner);
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const owners = [...this.#owners];
    this.#owners.clear();
    for (const { timer } of owners) clearTimeout(timer);
    await Promise.all(owners.map(({ thread }) => thread.close()));
  }

  #choose(): Owner {
    const [least] = [...this.#owners].sort((a, b) => a.files - b.files);
    const chosen =
      least === undefined || (least.files > 0 && this.#owners.size < THREADS_MAX)
        ? { thread: new Thread(this.#entry), files: 0, timer: undefined }
        : least;
    clearTimeout(chosen.timer);
    this.#owners.add(chosen);
    return chosen;
  }

  #release(owner: Owner): void {
    owner.files--;
    if (owner.files > 0 || !this.#owners.has(owner)) return;
    owner.timer = setTimeout(() => {
      this.#owners.delete(owner);
      void owner.thread.close();
    }, this.#idleMs).unref();
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

  addAlgorithm(algorithm: Algorithm): Promise<HexDigests> {
    return this.#thread.run('addFileAlgorithm', { id: this.#opened.id, algorithm });
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
    data.byteLength >= data.buffer.byteLength * (15 / 16)
  );
}
