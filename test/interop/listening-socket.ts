import koffi from 'koffi';
import { loadLibrary } from '../../src/platform/linux/ffi.ts';
import { Program } from './program.ts';

const libc = loadLibrary();
const socket = libc.func('int socket(int domain, int type, int protocol)');
const bind = libc.func('int bind(int fd, const uint8_t *address, uint32_t length)');
const listen = libc.func('int listen(int fd, int backlog)');
const close = libc.func('int close(int fd)');

// From socket.h and un.h: AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, and a sockaddr_un of 2 + 108 bytes.
const AF_UNIX = 1;
const STREAM_CLOSE_ON_EXEC = 1 | 0o2000000;
const ADDRESS_BYTES = 110;

/**
 * A unix socket that listens and that nobody here accepts from: what systemd holds for a `.socket`
 * unit. (A net.Server would accept connections itself.)
 */
export class ListeningSocket {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  static bind(path: string): ListeningSocket {
    const address = Buffer.alloc(ADDRESS_BYTES);
    address.writeUInt16LE(AF_UNIX, 0);
    address.write(path, 2);
    const fd: unknown = socket(AF_UNIX, STREAM_CLOSE_ON_EXEC, 0);
    if (typeof fd !== 'number' || fd < 0) throw new Error('socket failed');
    if (bind(fd, address, ADDRESS_BYTES) !== 0 || listen(fd, 128) !== 0) {
      throw new Error(`cannot listen on ${path}: errno ${koffi.errno()}`);
    }
    return new ListeningSocket(fd);
  }

  /** Starts a program that inherits it as file descriptor 3, told so by LISTEN_FDS and LISTEN_PID. */
  start(file: string, args: readonly string[]): Program {
    const script = 'export LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=plugin; exec "$@"';
    return new Program('sh', ['-c', script, 'sh', file, ...args], {
      stdio: ['ignore', 'pipe', 'pipe', this.#fd],
    });
  }

  close(): void {
    close(this.#fd);
  }
}
