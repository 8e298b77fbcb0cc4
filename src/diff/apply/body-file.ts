import { close, ftruncate, seek, startWriteBack, write } from '../../platform/linux/files.ts';
import type { Account, Place } from './account.ts';
import { finishNew } from './entry-attributes.ts';
import type { TarEntry } from './tar-entry.ts';
import type { Inherited } from './tree.ts';

/**
 * So much of a file, and what is left at its end, begins its way to the disk while the layer goes on;
 * smaller ends wait for the sync, which takes many at a time.
 */
const WRITE_BACK_BYTES = 4 * 1024 * 1024;
const WRITE_BACK_END_BYTES = 64 * 1024;

interface OpenFile {
  readonly fd: number;
  readonly entry: TarEntry;
  /** What the file got from its directory. */
  readonly inherited: Inherited;
  readonly place: Place;
}

/** The new file, if there is one, that the body of an entry goes to, piece by piece. */
export class BodyFile implements Disposable {
  readonly #account: Account;
  #open: OpenFile | undefined;
  #position = 0;
  #hasHoles = false;
  /** Where what is not on its way to the disk begins. */
  #writtenBack = 0;

  /** @param account counts the files */
  constructor(account: Account) {
    this.#account = account;
  }

  /** Owns the descriptor from here on. */
  open(file: OpenFile): void {
    this.#open = file;
    this.#position = 0;
    this.#hasHoles = false;
    this.#writtenBack = 0;
  }

  /** Between pieces may be holes. */
  write(bytes: Uint8Array, position: number): void {
    if (this.#open === undefined) return;
    const { fd } = this.#open;
    if (position !== this.#position) {
      seek(fd, position);
      this.#hasHoles = true;
    }
    write(fd, bytes);
    this.#position = position + bytes.length;
    this.#writeBack(fd, WRITE_BACK_BYTES);
  }

  /** It is whole, with all that its entry says of it. */
  finish(): void {
    if (this.#open === undefined) return;
    const { fd, entry, inherited, place } = this.#open;
    if (this.#position < entry.size) {
      ftruncate(fd, entry.size);
      this.#hasHoles = true;
    }
    this.#writeBack(fd, WRITE_BACK_END_BYTES);
    finishNew(fd, entry, inherited);
    const isPlain = !this.#hasHoles && entry.xattrs.size === 0 && inherited !== 'access lists';
    this.#account.file(fd, entry.size, place, isPlain);
    this[Symbol.dispose]();
  }

  /** Closes one that was given up. */
  [Symbol.dispose](): void {
    if (this.#open !== undefined) close(this.#open.fd);
    this.#open = undefined;
  }

  #writeBack(fd: number, fromBytes: number): void {
    if (this.#position - this.#writtenBack < fromBytes) return;
    startWriteBack(fd, this.#writtenBack);
    this.#writtenBack = this.#position;
  }
}
