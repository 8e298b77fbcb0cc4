import * as http2 from 'node:http2';
import type { Server as NetServer, Socket } from 'node:net';
import type { CallOwner } from './call.ts';
import { GRPC_CONTENT_TYPE, Http2Wire, unimplemented } from './http2-wire.ts';
import { STREAM_RESETS_MAX } from './limits.ts';
import type { Method, Service } from './service.ts';

/** Node's default of 64 KiB per stream makes a message of 8 MiB wait for 128 round trips. */
const STREAM_WINDOW_BYTES = 1 << 20;
const CONNECTION_WINDOW_BYTES = 8 << 20;
/** containerd has one connection for all its plugins and holds a stream per open writer. */
const STREAMS_MAX = 10_000;
/** How long answers that are on their way may take to leave. */
const FLUSH_MS = 1000;

const HTTP2_OPTIONS: http2.ServerOptions = {
  settings: { initialWindowSize: STREAM_WINDOW_BYTES, maxConcurrentStreams: STREAMS_MAX },
  streamResetBurst: STREAM_RESETS_MAX,
  streamResetRate: STREAM_RESETS_MAX,
  // In megabytes; beyond it Node refuses streams. What may be in memory is bounded by call.ts.
  maxSessionMemory: 1 << 20,
};

export interface GrpcServerOptions {
  readonly services: readonly Service[];
  /** Something was thrown that is no OpError; the client got Internal. */
  readonly onDefect: (error: unknown, method: string) => void;
}

/** Serves our services as gRPC over HTTP/2 without TLS, on the connections of a listening net.Server. */
export class GrpcServer implements CallOwner {
  readonly #onDefect: (error: unknown, method: string) => void;
  readonly #methods: ReadonlyMap<string, Method>;
  readonly #http2: http2.Http2Server;
  readonly #listeners = new Set<NetServer>();
  readonly #sockets = new Set<Socket>();
  readonly #sessions = new Set<http2.ServerHttp2Session>();
  #runningCalls = 0;
  /** Called when a call or a connection has ended. */
  #checkIdle = (): void => undefined;

  constructor({ services, onDefect }: GrpcServerOptions) {
    this.#onDefect = onDefect;
    this.#methods = methodsByPath(services);
    this.#http2 = http2.createServer(HTTP2_OPTIONS);
    this.#http2.on('session', (session) => this.#serveSession(session));
    this.#http2.on('stream', (stream, headers) => this.#serveStream(stream, headers));
    // The connection is closed by then: bytes that are not HTTP/2, or a client that broke its rules.
    this.#http2.on('sessionError', () => undefined);
  }

  /** Serves what `listener` accepts from now on, and closes it in the end. */
  attach(listener: NetServer): void {
    this.#listeners.add(listener);
    listener.on('connection', (socket: Socket) => {
      // One that waited for this server may be gone already; it would never say that it closed.
      if (socket.destroyed || socket.readableEnded) {
        socket.destroy();
        return;
      }
      this.#sockets.add(socket);
      socket.once('close', () => {
        this.#sockets.delete(socket);
        this.#checkIdle();
      });
      this.#http2.emit('connection', socket);
    });
  }

  /**
   * Accepts nothing more, lets the calls under way finish, and cuts off what is left after `graceMs`.
   * Resolves when no handler runs any more, or, should one hang, after twice that time.
   */
  async close({ graceMs }: { readonly graceMs: number }): Promise<void> {
    for (const listener of this.#listeners) listener.close();
    this.#listeners.clear();
    for (const session of this.#sessions) session.close();
    const cutOff = setTimeout(() => {
      for (const session of this.#sessions) session.destroy();
    }, graceMs);
    await this.#idle(() => this.#runningCalls === 0, 2 * graceMs);
    clearTimeout(cutOff);
    // The last answers are on their way; a client that does not take them must not hold us up.
    await this.#idle(() => this.#sockets.size === 0, Math.min(graceMs, FLUSH_MS));
    for (const socket of this.#sockets) socket.destroy();
  }

  callStarted(): void {
    this.#runningCalls++;
  }

  callEnded(): void {
    this.#runningCalls--;
    this.#checkIdle();
  }

  callFailed(error: unknown, path: string): void {
    this.#onDefect(error, path);
  }

  #serveSession(session: http2.ServerHttp2Session): void {
    this.#sessions.add(session);
    session.once('close', () => this.#sessions.delete(session));
    if (!session.destroyed) session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
  }

  #serveStream(stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders): void {
    // Each error comes with a close, which ends the call.
    stream.on('error', () => undefined);
    // Cancelled before we came to it: there is nobody to answer, and no close to come.
    if (stream.destroyed || stream.closed) return;
    if (headers['content-type']?.startsWith(GRPC_CONTENT_TYPE) !== true) {
      stream.respond({ ':status': 415 }, { endStream: true });
      return;
    }
    const path = headers[':path'] ?? '';
    const method = this.#methods.get(path);
    if (method === undefined) unimplemented(stream, path);
    else new Http2Wire(stream, headers, method.kind !== 'bidi').serve(path, method, this);
  }

  async #idle(isIdle: () => boolean, timeoutMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timeout = setTimeout(() => resolve(), timeoutMs);
    this.#checkIdle = () => {
      if (isIdle()) resolve();
    };
    this.#checkIdle();
    await promise;
    clearTimeout(timeout);
  }
}

function methodsByPath(services: readonly Service[]): Map<string, Method> {
  const methods = new Map<string, Method>();
  for (const service of services) {
    for (const [name, method] of Object.entries(service.methods)) {
      methods.set(`/${service.name}/${name}`, method);
    }
  }
  return methods;
}
