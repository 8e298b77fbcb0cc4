import { chmod, chown, lstat, mkdir, unlink } from 'node:fs/promises';
import { connect, createServer, type ListenOptions, type Server } from 'node:net';
import { dirname } from 'node:path';
import { messageOf, OpError } from '../base/errors.ts';

export interface SocketOptions {
  readonly socket: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** Every pod on a host may have a connection of its own waiting while the daemon restarts. */
const BACKLOG = 4096;

/** Told of a socket before its first connection can come. */
type Attach = (server: Server) => void;

/**
 * Listens, so that clients are attended to from here on. A socket file that nobody answers on is replaced.
 * @throws OpError FailedPrecondition another process answers on it, or it cannot be made
 */
export async function listen(options: SocketOptions, attach: Attach): Promise<Server> {
  const { socket, mode, uid, gid } = options;
  try {
    await mkdir(dirname(socket), { recursive: true, mode: 0o711 });
    if (await isAnswered(socket)) {
      throw new OpError(
        'FailedPrecondition',
        `socket ${socket}: another process is listening on it`,
      );
    }
    const server = await listening({ path: socket, backlog: BACKLOG }, attach);
    await chmod(socket, mode);
    await chown(socket, uid, gid);
    return server;
  } catch (error) {
    if (error instanceof OpError) throw error;
    throw new OpError('FailedPrecondition', `socket ${socket}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** A socket that is already bound and listening, such as systemd hands over. */
export const inherit = (fd: number, attach: Attach): Promise<Server> => listening({ fd }, attach);

function listening(
  options: ListenOptions & { readonly fd?: number },
  attach: Attach,
): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    attach(server);
    server.once('error', reject);
    server.listen(options, () => {
      server.off('error', reject);
      resolve(server);
    });
  });
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
