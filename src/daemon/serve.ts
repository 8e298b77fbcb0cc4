import type { Server } from 'node:net';
import { messageOf, SyncFailure } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { EndedCall } from '../grpc/call.ts';
import { GrpcServer } from '../grpc/server.ts';
import { Health } from '../grpc/services/health.ts';
import { exitAtOnce } from '../platform/linux/exit.ts';
import { compose, type Stores, type WorkerPaths } from './compose.ts';
import type { DaemonConfig } from './config.ts';
import { inheritedSockets } from './listen-fds.ts';
import { Notifier } from './notify.ts';
import { inherit, listen } from './plugin-socket.ts';
import { namesOf, servicesOf } from './services.ts';

/** How long running calls may take to finish after SIGTERM; systemd gives up after 90 s. */
const DRAIN_MS = 30_000;

/**
 * Runs the daemon until SIGTERM or SIGINT. Its socket, of either kind, exists first, and greets: containerd gives a server
 * one second for that. Calls wait until the records are read, changes for start-up's look at the disk.
 * @throws OpError with one line for the operator when it cannot start
 */
export async function serve(config: DaemonConfig, log: Log, workers: WorkerPaths): Promise<void> {
  // Whatever is made before its mode is set is for nobody else.
  process.umask(0o077);
  const die = (error: Error): never => {
    log.error(
      { error: error.message },
      'stopping at once: nothing can be acknowledged safely any more',
    );
    exitAtOnce(1);
  };
  process.once('uncaughtException', die);

  const server = new GrpcServer({
    onDefect: (error, method) => {
      if (error instanceof SyncFailure) die(error);
      log.error(
        { method, error },
        'a call failed in a way it should not: this is a defect of ballast',
      );
    },
    onEnded: log.isDebug ? (call) => logCall(log, call) : undefined,
  });
  const attach = (socket: Server): void => server.attach(socket);
  const [inherited] = inheritedSockets(process.env);
  const socket = await (inherited === undefined
    ? listen(config.standalone ?? config.plugin, attach)
    : inherit(inherited.fd, attach));
  let stores: Stores;
  try {
    stores = await compose(config, { log, workers, onFatal: die });
  } catch (error) {
    // Not awaited: clients that are connected already would hold up the end.
    socket.close();
    throw error;
  }
  // Until here a signal ends the process at once: nothing has been acknowledged, and a crash is safe.
  const stop = signalled();
  stores.recovered.then(
    () => log.info({}, 'records and disk agree: ready for changes'),
    (error: unknown) =>
      die(new Error(`start-up could not compare records and disk: ${messageOf(error)}`)),
  );
  const health = new Health(namesOf(stores));
  server.serve(servicesOf(stores, health));
  const notifier = new Notifier(process.env);
  notifier.ready();
  log.info(
    {
      socket: (config.standalone ?? config.plugin).socket,
      root: config.root,
      snapshotters: [...config.snapshotters.keys()],
    },
    'serving',
  );

  const signal = await stop;
  log.info({ signal }, 'stopping: running calls may finish');
  notifier.stopping();
  health.set('notServing');
  await server.close({ graceMs: DRAIN_MS });
  log.debug({}, 'calls have ended: closing the stores');
  await stores[Symbol.asyncDispose]();
  log.info({}, 'stopped');
}

/** `code` is gRPC's number; what a client was told with it is there where it is not 0. */
function logCall(log: Log, { path, status, ms }: EndedCall): void {
  const { code, message } = status;
  const fields = { method: path, code, ms: Number(ms.toFixed(3)) };
  log.debug(code === 0 ? fields : { ...fields, error: message }, 'call');
}

function signalled(): Promise<string> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => resolve(signal));
  });
}
