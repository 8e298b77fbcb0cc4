import type { Server as NetServer, Socket } from 'node:net';
import { Connection, type ConnectionOwner } from './http2/connection.ts';
import type { EndedCall } from './call.ts';
import type { Method, Service } from './service.ts';
import type { CallStatus } from './status.ts';

/** How long answers that are on their way may take to leave. */
const FLUSH_MS = 1000;

export interface GrpcServerOptions {
  /** Something was thrown that is no OpError; the client got Internal. */
  readonly onDefect: (error: unknown, method: string) => void;
  /** A call has ended, well or not. */
  readonly onEnded?: ((call: EndedCall) => void) | undefined;
}

/** Serves our services as gRPC over HTTP/2 without TLS, on the connections of a listening net.Server. */
export class GrpcServer implements ConnectionOwner {
  readonly #onDefect: (error: unknown, method: string) => void;
  readonly #onEnded: ((call: EndedCall) => void) | undefined;
  #methods: ReadonlyMap<string, Method> | undefined;
  readonly #listeners = new Set<NetServer>();
  readonly #connections = new Set<Connection>();
  #runningCalls = 0;
  /** Called when a call or a connection has ended. */
  #checkIdle = (): void => undefined;

  constructor({ onDefect, onEnded }: GrpcServerOptions) {
    this.#onDefect = onDefect;
    this.#onEnded = onEnded;
  }

  /** Connections are greeted before; calls wait for this. */
  serve(services: readonly Service[]): void {
    this.#methods = methodsByPath(services);
    for (const connection of this.#connections) connection.startCalls();
  }

  get methods(): ReadonlyMap<string, Method> | undefined {
    return this.#methods;
  }

  /** Serves what `listener` accepts from now on, and closes it in the end. */
  attach(listener: NetServer): void {
    this.#listeners.add(listener);
    listener.on('connection', (socket: Socket) => {
      this.#connections.add(new Connection(socket, this));
    });
  }

  /**
   * Accepts nothing more, lets the calls under way finish, and cuts off what is left after `graceMs`.
   * Resolves when no handler runs any more, or, should one hang, after twice that time.
   */
  async close({ graceMs }: { readonly graceMs: number }): Promise<void> {
    for (const listener of this.#listeners) listener.close();
    this.#listeners.clear();
    for (const connection of this.#connections) connection.leave();
    const cutOff = setTimeout(() => this.#destroyConnections(), graceMs);
    await this.#idle(() => this.#runningCalls === 0, 2 * graceMs);
    clearTimeout(cutOff);
    // The last answers are on their way; a client that does not take them must not hold us up.
    await this.#idle(() => this.#connections.size === 0, Math.min(graceMs, FLUSH_MS));
    this.#destroyConnections();
  }

  callStarted(): void {
    this.#runningCalls++;
  }

  callEnded(path: string, status: CallStatus, beganMs: number): void {
    this.#runningCalls--;
    this.#onEnded?.({ path, status, ms: performance.now() - beganMs });
    this.#checkIdle();
  }

  callFailed(error: unknown, path: string): void {
    this.#onDefect(error, path);
  }

  connectionClosed(connection: Connection): void {
    this.#connections.delete(connection);
    this.#checkIdle();
  }

  #destroyConnections(): void {
    for (const connection of this.#connections) connection.destroy();
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
