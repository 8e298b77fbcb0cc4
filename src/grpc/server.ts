import { EventEmitter } from 'node:events';
import type { ServerHttp2Session } from 'node:http2';
import type { Server as NetServer, Socket } from 'node:net';
import * as grpc from '@grpc/grpc-js';
import type { CallListener, CallOwner } from './call.ts';
import { makeCall } from './call.ts';
import { MESSAGE_BYTES_MAX, STREAM_RESETS_MAX } from './limits.ts';
import type { Method, Service } from './service.ts';

/** Node's default of 64 KiB per stream makes a message of 8 MiB wait for 128 round trips. */
const STREAM_WINDOW_BYTES = 1 << 20;
const CONNECTION_WINDOW_BYTES = 8 << 20;
/** containerd has one connection for all its plugins and holds a stream per open writer. */
const STREAMS_MAX = 10_000;
const FLUSH_MS = 1000;

export interface GrpcServerOptions {
  readonly services: readonly Service[];
  /** Something was thrown that is no OpError; the client got Internal. */
  readonly onDefect: (error: unknown, method: string) => void;
}

/**
 * Serves our services over the connections of a listening net.Server. This is the one place that
 * knows that grpc-js does it. An interceptor takes each call before grpc-js's own handling, which
 * gives exact control over reads and costs no stream objects.
 */
export class GrpcServer implements CallOwner {
  readonly #onDefect: (error: unknown, method: string) => void;
  readonly #methods: ReadonlyMap<string, Method>;
  readonly #injector: grpc.ConnectionInjector;
  readonly #listeners = new Set<NetServer>();
  readonly #sockets = new Set<Socket>();
  #runningCalls = 0;
  /** Called when a call or a connection has ended. */
  #checkIdle = (): void => undefined;

  constructor({ services, onDefect }: GrpcServerOptions) {
    this.#onDefect = onDefect;
    this.#methods = methodsByPath(services);
    const server = new grpc.Server({
      'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
      'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
      'grpc.max_concurrent_streams': STREAMS_MAX,
      'grpc.enable_channelz': 0,
      interceptors: [(descriptor, call) => this.#take(descriptor.path, call)],
    });
    for (const path of this.#methods.keys()) {
      server.register(path, neverCalled, asItIs, asItIs, 'bidi');
    }
    setStreamWindow(server);
    this.#injector = server.createConnectionInjector(grpc.ServerCredentials.createInsecure());
    setConnectionWindow(server);
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
      this.#injector.injectConnection(socket);
    });
  }

  /**
   * Accepts nothing more, lets the calls under way finish, and cuts off what is left after `graceMs`.
   * Resolves when no handler runs any more, or, should one hang, after twice that time.
   */
  async close({ graceMs }: { readonly graceMs: number }): Promise<void> {
    for (const listener of this.#listeners) listener.close();
    this.#listeners.clear();
    this.#injector.drain(graceMs);
    await this.#idle(() => this.#runningCalls === 0, 2 * graceMs);
    // The last answers are on their way; a client that does not take them must not hold us up.
    await this.#idle(() => this.#sockets.size === 0, Math.min(graceMs, FLUSH_MS));
    for (const socket of this.#sockets) socket.destroy();
    this.#injector.destroy();
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

  #take(path: string, call: grpc.ServerInterceptingCallInterface): grpc.ServerInterceptingCall {
    const method = this.#methods.get(path);
    if (method === undefined) throw new Error(`${path}: registered without a method`);
    return new TakenCall(call, makeCall(path, method, call, this));
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

/** A call whose events go to our listener; the one that grpc-js brings is dropped. */
class TakenCall extends grpc.ServerInterceptingCall {
  readonly #call: grpc.ServerInterceptingCallInterface;
  readonly #listener: CallListener;

  constructor(call: grpc.ServerInterceptingCallInterface, listener: CallListener) {
    super(call);
    this.#call = call;
    this.#listener = listener;
  }

  override start(): void {
    this.#call.start(this.#listener);
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

function neverCalled(): never {
  throw new Error('a call was not taken by the interceptor');
}

const asItIs = (message: Buffer): Buffer => message;

/** A grpc-js server has no option for the windows (its clients have): these are its private fields. */
function setStreamWindow(server: grpc.Server): void {
  const options: unknown = Reflect.get(server, 'commonServerOptions');
  if (typeof options !== 'object' || options === null) {
    throw new Error('grpc-js: commonServerOptions is no longer there');
  }
  Reflect.set(options, 'streamResetBurst', STREAM_RESETS_MAX);
  Reflect.set(options, 'streamResetRate', STREAM_RESETS_MAX);
  Reflect.set(options, 'settings', {
    maxConcurrentStreams: STREAMS_MAX,
    initialWindowSize: STREAM_WINDOW_BYTES,
  });
}

function setConnectionWindow(server: grpc.Server): void {
  const servers: unknown = Reflect.get(server, 'http2Servers');
  const [http2Server]: unknown[] = servers instanceof Map ? [...servers.keys()] : [];
  if (!(http2Server instanceof EventEmitter)) {
    throw new Error('grpc-js: http2Servers is no longer there');
  }
  http2Server.on('session', (session: ServerHttp2Session) => {
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
  });
}
