// A real server on a unix socket, with methods of the test's own, and grpc-js as its client.
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import type { RequestContext } from '../../src/base/context.ts';
import { GrpcServer } from '../../src/grpc/server.ts';
import type { Method, Service } from '../../src/grpc/service.ts';

export const asItIs = (bytes: Buffer): Buffer => bytes;
export const MiB = 1 << 20;

export interface Served extends AsyncDisposable {
  readonly client: grpc.Client;
  readonly server: GrpcServer;
  readonly socketPath: string;
  readonly defects: unknown[];
}

export const serve = (methods: Record<string, Method>): Promise<Served> =>
  serveAll([{ name: 'test.Test', methods }]);

/** Without services the server is still starting: `server.serve` tells it of some. */
export async function serveAll(services: readonly Service[] | undefined): Promise<Served> {
  const directory = await mkdtemp(join(tmpdir(), 'wire-server-'));
  const socketPath = join(directory, 'x.sock');
  const defects: unknown[] = [];
  const server = new GrpcServer({
    onDefect: (error) => defects.push(error),
  });
  if (services !== undefined) server.serve(services);
  const listener = createServer();
  await new Promise<void>((resolve) => listener.listen(socketPath, resolve));
  server.attach(listener);
  const client = new grpc.Client(`unix:${socketPath}`, grpc.credentials.createInsecure(), {
    'grpc.max_receive_message_length': -1,
    'grpc.max_send_message_length': -1,
  });
  return {
    client,
    server,
    socketPath,
    defects,
    [Symbol.asyncDispose]: async () => {
      client.close();
      await server.close({ graceMs: 100 });
      await rm(directory, { recursive: true });
    },
  };
}

export function call(
  { client }: Pick<Served, 'client'>,
  method: string,
  request: Buffer,
  options: { metadata?: grpc.Metadata; deadline?: number } = {},
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      `/test.Test/${method}`,
      asItIs,
      asItIs,
      request,
      options.metadata ?? new grpc.Metadata(),
      options.deadline === undefined ? {} : { deadline: options.deadline },
      (error, response) => (error === null ? resolve(response ?? Buffer.alloc(0)) : reject(error)),
    );
  });
}

export const openBidi = (
  { client }: Served,
  method: string,
): grpc.ClientDuplexStream<Buffer, Buffer> =>
  client.makeBidiStreamRequest(`/test.Test/${method}`, asItIs, asItIs, new grpc.Metadata(), {});

export const openStream = (
  { client }: Served,
  method: string,
  request = Buffer.from('x'),
): grpc.ClientReadableStream<Buffer> =>
  client.makeServerStreamRequest(
    `/test.Test/${method}`,
    asItIs,
    asItIs,
    request,
    new grpc.Metadata(),
    {},
  );

export const echo: Method = { kind: 'unary', handle: async (_ctx, request) => request };

/** A promise with its resolver: what a test waits for. */
export function moment<T = void>(): PromiseWithResolvers<T> {
  return Promise.withResolvers<T>();
}

export const abortOf = (ctx: RequestContext): Promise<void> =>
  new Promise((resolve) => {
    if (ctx.signal.aborted) resolve();
    ctx.signal.addEventListener('abort', () => resolve());
  });
