import { endianness } from 'node:os';
import { loadLibrary } from './ffi.ts';

/** socket(2), send(2) on Linux, all architectures that Node supports. */
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2_000_000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/** Sends datagrams to one unix socket, which Node cannot. Disposing closes it. */
export interface DatagramSender extends Disposable {
  /** False when it did not arrive: nobody listens there, or its queue is full. Never waits. */
  send(text: string): boolean;
}

/**
 * @param address a path, or `@name` for a socket in the abstract name space. @see unix(7)
 */
export function openDatagramSender(address: string): DatagramSender {
  const libc = loadLibrary();
  const socket = libc.func('int socket(int, int, int)');
  const sendto = libc.func('long sendto(int, void*, size_t, int, void*, uint32_t)');
  const close = libc.func('int close(int)');

  const target = socketAddress(address);
  let fd: number = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  return {
    send(text) {
      const data = Buffer.from(text);
      const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
      const sent: number = sendto(fd, data, data.length, flags, target, target.length);
      return sent === data.length;
    },
    [Symbol.dispose]() {
      if (fd >= 0) close(fd);
      fd = -1;
    },
  };
}

/** struct sockaddr_un: the family as a 16 bit number of the machine, then the path. */
function socketAddress(address: string): Buffer {
  const family = Buffer.alloc(2);
  if (endianness() === 'LE') family.writeUInt16LE(AF_UNIX);
  else family.writeUInt16BE(AF_UNIX);
  const path = address.startsWith('@') ? `\0${address.slice(1)}` : `${address}\0`;
  return Buffer.concat([family, Buffer.from(path)]);
}
