import { chmod, chown, lstat, mkdir, unlink } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { messageOf, OpError } from '../base/errors.ts';

export interface SocketOptions {
  readonly socket: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** A bound socket. Who connects waits until `release` is called. */
export interface Listener {
  readonly server: Server;
  release(): void;
}

/** Every pod on a host may have a connection of its own waiting while the daemon restarts. */
const BACKLOG = 4096;

/**
 * Listens, so that clients queue from here on. A socket file that nobody answers on is replaced.
 * @throws OpError FailedPrecondition another process answers on it, or it cannot be made
 */
export async function listen(options: SocketOptions): Promise<Listener> {
  const { socket, mode, uid, gid } = options;
  try {
    await mkdir(dirname(socket), { recursive: true, mode: 0o711 });
    if (await isAnswered(socket)) {
      throw new OpError(
        'FailedPrecondition',
        `socket ${socket}: another process is listening on it`,
      );
    }
    const listener = await listening((server) => server.listen({ path: socket, backlog: BACKLOG }));
    await chmod(socket, mode);
    await chown(socket, uid, gid);
    return listener;
  } catch (error) {
    if (error instanceof OpError) throw error;
    throw new OpError('FailedPrecondition', `socket ${socket}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** A socket that is already bound and listening, such as systemd hands over. */
export function inherit(fd: number): Promise<Listener> {
  return listening((server) => server.listen({ fd }));
}

function listening(start: (server: Server) => void): Promise<Listener> {
  return new Promise((resolve, reject) => {
    const server = createServer({ pauseOnConnect: true });
    // Before the first connection can come.
    const release = holdConnections(server);
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      resolve({ server, release });
    });
    start(server);
  });
}

/** Keeps connections, unread, until the returned function hands them to who serves them by then. */
function holdConnections(server: Server): () => void {
  const held: Socket[] = [];
  const hold = (socket: Socket): void => void held.push(socket);
  server.on('connection', hold);
  return () => {
    server.off('connection', hold);
    // A property of net.Server, though not in its types.
    Reflect.set(server, 'pauseOnConnect', false);
    for (const socket of held) {
      // Who left meanwhile has nothing to be served; its `close` event is over.
      if (socket.destroyed) continue;
      server.emit('connection', socket);
      socket.resume();
    }
  };
}

/** Removes a stale socket file on the way. */
async function isAnswered(socket: string): Promise<boolean> {
  const code = await new Promise<string>((resolve) => {
    const probe = connect(socket);
    probe.once('connect', () => {
      probe.destroy();
      resolve('');
    });
    probe.once('error', (error) => resolve('code' in error ? String(error.code) : 'unknown'));
  });
  if (code === 'ECONNREFUSED') {
    // Any file refuses connections.
    if (!(await lstat(socket)).isSocket()) {
      throw new OpError(
        'FailedPrecondition',
        `socket ${socket}: a file that is no socket is in its place: move it away, or name another path`,
      );
    }
    await unlink(socket);
  }
  return code === '';
}
