import { background, type RequestContext } from '../../base/context.ts';
import { isOpError, messageOf, OpError } from '../../base/errors.ts';
import { Calls } from '../../grpc/proxy/calls.ts';
import type { Asked } from './address.ts';
import type { Programs } from './programs.ts';

/**
 * Asks the daemon that the options name, or else the one of the config file, on the socket that it has.
 * @throws OpError as the daemon answers; Unavailable naming a socket on which nobody does; as loadConfig
 */
export async function ask<Answer>(
  asked: Asked,
  programs: Programs,
  question: (calls: Calls, ctx: RequestContext) => Promise<Answer>,
): Promise<Answer> {
  const socket = asked.address || socketOf(programs, asked.config ?? programs.defaultConfigFile);
  using calls = new Calls(socket);
  try {
    return await question(calls, { ...background, namespace: asked.namespace });
  } catch (error) {
    if (isOpError(error, 'Unimplemented')) {
      throw new OpError(
        'FailedPrecondition',
        `${socket} is not the socket of a ballast that knows this`,
      );
    }
    if (!isOpError(error, 'Unavailable')) throw error;
    throw new OpError('Unavailable', `asked on ${socket}: ${messageOf(error)}`, { cause: error });
  }
}

function socketOf(programs: Programs, file: string): string {
  try {
    const { standalone, plugin } = programs.loadConfig(file);
    return (standalone ?? plugin).socket;
  } catch (error) {
    if (!isOpError(error, 'NotFound')) throw error;
    throw new OpError(
      'NotFound',
      `${file}: cannot read the config; say which ballast to ask, by --address SOCKET, BALLAST_ADDRESS or --config FILE`,
      { cause: error },
    );
  }
}
