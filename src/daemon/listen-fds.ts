import { fstatSync } from 'node:fs';
import { OpError } from '../base/errors.ts';
import type { Environment } from './notify.ts';

/** The first descriptor that a supervisor hands over. @see sd_listen_fds(3) */
const FIRST_FD = 3;
/** FileDescriptorName= of ballast.socket. */
const PLUGIN_NAME = 'plugin';

export interface InheritedSocket {
  readonly name: string;
  readonly fd: number;
}

/**
 * The listening sockets that a supervisor handed over: the one called `plugin`, or the only one, whatever
 * its name. Descriptors meant for another process (LISTEN_PID) are not ours.
 * @throws OpError FailedPrecondition several were handed over and none has that name; it is no socket
 */
export function inheritedSockets(
  environment: Environment,
  pid: number = process.pid,
): readonly InheritedSocket[] {
  const { LISTEN_PID: owner, LISTEN_FDS: text, LISTEN_FDNAMES: names = '' } = environment;
  if (owner !== String(pid)) return [];
  const count = Number(text);
  if (!Number.isInteger(count) || count <= 0) return [];
  const index = count === 1 ? 0 : names.split(':').indexOf(PLUGIN_NAME);
  if (index < 0 || index >= count) {
    throw new OpError(
      'FailedPrecondition',
      `LISTEN_FDS: ${count} sockets were handed over and none is called "${PLUGIN_NAME}": write FileDescriptorName=${PLUGIN_NAME} into its .socket unit`,
    );
  }
  const fd = FIRST_FD + index;
  if (!isSocket(fd)) {
    throw new OpError('FailedPrecondition', `LISTEN_FDS: file descriptor ${fd} is no open socket`);
  }
  return [{ name: PLUGIN_NAME, fd }];
}

function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}
