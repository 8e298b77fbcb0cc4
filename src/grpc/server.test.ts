import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import type { RequestContext } from '../base/context.ts';
import { OpError } from '../base/errors.ts';
import { GrpcServer } from './server.ts';
import type { Method } from './service.ts';

const asItIs = (bytes: Buffer): Buffer => bytes;
const MiB = 1 << 20;

interface Served extends AsyncDisposable {
  readonly client: grpc.Client;
  readonly server: GrpcServer;
  readonly socketPath: string;
  readonly defects: unknown[];
}

async function serve(methods: Record<string, Method>): Promise<Served> {
  const directory = await mkdtemp(join(tmpdir(), 'wire-server-'));
  const socketPath = join(directory, 'x.sock');
  const defects: unknown[] = [];
  const server = new GrpcServer({
    services: [{ name: 'test.Test', methods }],
    onDefect: (error) => defects.push(error),
  });
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

function call(
  { client }: Served,
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

const openBidi = ({ client }: Served, method: string): grpc.ClientDuplexStream<Buffer, Buffer> =>
  client.makeBidiStreamRequest(`/test.Test/${method}`, asItIs, asItIs, new grpc.Metadata(), {});

const openStream = ({ client }: Served, method: string): grpc.ClientReadableStream<Buffer> =>
  client.makeServerStreamRequest(
    `/test.Test/${method}`,
    asItIs,
    asItIs,
    Buffer.from('x'),
    new grpc.Metadata(),
    {},
  );

const echo: Method = { kind: 'unary', handle: async (_ctx, request) => request };

/** A promise with its resolver: what a test waits for. */
function moment<T = void>(): PromiseWithResolvers<T> {
  return Promise.withResolvers<T>();
}

const abortOf = (ctx: RequestContext): Promise<void> =>
  new Promise((resolve) => {
    if (ctx.signal.aborted) resolve();
    ctx.signal.addEventListener('abort', () => resolve());
  });

test('a unary call is answered, also with 16 MiB in and out', async () => {
  await using served = await serve({ Echo: echo });
  expect(await call(served, 'Echo', Buffer.from('hello'))).toEqual(Buffer.from('hello'));
  const large = Buffer.alloc(16 * MiB, 7);
  expect((await call(served, 'Echo', large)).equals(large)).toBe(true);
});

test('a message over 16 MiB is refused, in and out', async () => {
  await using served = await serve({
    Echo: echo,
    Large: { kind: 'unary', handle: async () => Buffer.alloc(16 * MiB + 1) },
  });
  const refused = { code: grpc.status.RESOURCE_EXHAUSTED };
  await expect(call(served, 'Echo', Buffer.alloc(16 * MiB + 1))).rejects.toMatchObject(refused);
  await expect(call(served, 'Large', Buffer.alloc(0))).rejects.toMatchObject(refused);
});

test('an empty message is a message', async () => {
  await using served = await serve({ Echo: echo });
  expect(await call(served, 'Echo', Buffer.alloc(0))).toHaveLength(0);
});

test('an OpError becomes its status, with its message and no details', async () => {
  await using served = await serve({
    Fail: {
      kind: 'unary',
      handle: () => Promise.reject(new OpError('NotFound', 'blob "100%/é\n": not here')),
    },
  });
  const failure = call(served, 'Fail', Buffer.alloc(0));
  await expect(failure).rejects.toMatchObject({
    code: grpc.status.NOT_FOUND,
    details: 'blob "100%/é\n": not here',
  });
  await failure.catch((error: grpc.ServiceError) => {
    expect(error.metadata.get('grpc-status-details-bin')).toEqual([]);
  });
  expect(served.defects).toEqual([]);
});

test('messages are cut, made well-formed, and never end as containerd misreads them', async () => {
  const messages = ['x'.repeat(100_000), `a\ud800b`, 'label x: conflict'];
  await using served = await serve({
    Fail: {
      kind: 'unary',
      handle: (_ctx, request) =>
        Promise.reject(new OpError('FailedPrecondition', messages[request[0] ?? 0] ?? '')),
    },
  });
  await expect(call(served, 'Fail', Buffer.of(0))).rejects.toMatchObject({
    details: `${'x'.repeat(1024)}…`,
  });
  await expect(call(served, 'Fail', Buffer.of(1))).rejects.toMatchObject({ details: 'a\ufffdb' });
  await expect(call(served, 'Fail', Buffer.of(2))).rejects.toMatchObject({
    details: 'label x: conflict.',
  });
});

test('anything else that is thrown is Internal, and reported', async () => {
  const defect = new TypeError('x is not a function');
  await using served = await serve({
    Fail: { kind: 'unary', handle: () => Promise.reject(defect) },
    FailAtOnce: {
      kind: 'unary',
      handle: () => {
        throw defect;
      },
    },
  });
  for (const method of ['Fail', 'FailAtOnce']) {
    await expect(call(served, method, Buffer.alloc(0))).rejects.toMatchObject({
      code: grpc.status.INTERNAL,
    });
  }
  expect(served.defects).toEqual([defect, defect]);
});

test('a method that is not served is Unimplemented', async () => {
  await using served = await serve({ Echo: echo });
  await expect(call(served, 'None', Buffer.alloc(0))).rejects.toMatchObject({
    code: grpc.status.UNIMPLEMENTED,
  });
});

test('namespace and lease come from the headers; of several values the first is taken', async () => {
  const seen: (string | undefined)[] = [];
  await using served = await serve({
    See: {
      kind: 'unary',
      handle: async (ctx, request) => {
        seen.push(ctx.namespace, ctx.leaseId);
        return request;
      },
    },
  });
  const metadata = new grpc.Metadata();
  metadata.add('containerd-namespace', 'first');
  metadata.add('containerd-namespace', 'second');
  metadata.add('containerd-lease', 'lease-1');
  await call(served, 'See', Buffer.alloc(0), { metadata });
  await call(served, 'See', Buffer.alloc(0));
  expect(seen).toEqual(['first', 'lease-1', undefined, undefined]);
});

test('the signal aborts when the client cancels, its deadline passes, or its connection is lost', async () => {
  const started: (() => void)[] = [];
  const aborted: string[] = [];
  let seen = moment();
  await using served = await serve({
    Wait: {
      kind: 'unary',
      handle: async (ctx, request) => {
        started.shift()?.();
        await abortOf(ctx);
        aborted.push(Buffer.from(request).toString());
        seen.resolve();
        return request;
      },
    },
  });
  const { client } = served;
  const begun = moment();
  started.push(begun.resolve);
  const cancelled = client.makeUnaryRequest(
    '/test.Test/Wait',
    asItIs,
    asItIs,
    Buffer.from('cancel'),
    () => undefined,
  );
  await begun.promise;
  cancelled.cancel();
  await seen.promise;

  seen = moment();
  const late = call(served, 'Wait', Buffer.from('deadline'), { deadline: Date.now() + 30 });
  await expect(late).rejects.toMatchObject({ code: grpc.status.DEADLINE_EXCEEDED });
  await seen.promise;

  seen = moment();
  const again = moment();
  started.push(again.resolve);
  const lost = call(served, 'Wait', Buffer.from('connection'));
  lost.catch(() => undefined);
  await again.promise;
  client.close();
  await served.server.close({ graceMs: 1 });
  await seen.promise;
  expect(aborted).toEqual(['cancel', 'deadline', 'connection']);
});

test('a finished request is not aborted', async () => {
  const signals: AbortSignal[] = [];
  await using served = await serve({
    See: {
      kind: 'unary',
      handle: async (ctx, request) => {
        signals.push(ctx.signal);
        return request;
      },
    },
  });
  await call(served, 'See', Buffer.alloc(0));
  await call(served, 'See', Buffer.alloc(0));
  expect(signals.map((signal) => signal.aborted)).toEqual([false, false]);
});

test('a stream goes no faster than its client, and its handler ends when the client cancels', async () => {
  let sent = 0;
  const ended = moment();
  await using served = await serve({
    Echo: echo,
    Stream: {
      kind: 'serverStream',
      handle: async function* () {
        try {
          for (;;) {
            sent++;
            yield Buffer.alloc(MiB);
          }
        } finally {
          ended.resolve();
        }
      },
    },
  });
  const stream = openStream(served, 'Stream');
  stream.on('error', () => undefined);
  await new Promise<void>((resolve) => {
    stream.once('data', () => {
      stream.pause();
      resolve();
    });
  });
  await call(served, 'Echo', Buffer.alloc(0));
  stream.cancel();
  await ended.promise;
  expect(sent).toBeLessThan(40);
});

test('a stream is complete before its status', async () => {
  await using served = await serve({
    Stream: {
      kind: 'serverStream',
      handle: async function* () {
        for (let index = 0; index < 100; index++) yield Buffer.alloc(64 << 10, index);
        throw new OpError('DataLoss', 'that was all');
      },
    },
  });
  const received: number[] = [];
  const reading = (async () => {
    for await (const bytes of openStream(served, 'Stream'))
      received.push(Buffer.from(bytes)[0] ?? -1);
  })();
  await expect(reading).rejects.toMatchObject({ code: grpc.status.DATA_LOSS });
  expect(received).toEqual(Array.from({ length: 100 }, (_, index) => index));
});

test('a malformed request of a stream is a status, not a defect', async () => {
  await using served = await serve({
    Stream: {
      kind: 'serverStream',
      handle: () => {
        throw new OpError('InvalidArgument', 'malformed');
      },
    },
  });
  const stream = openStream(served, 'Stream');
  await expect(stream.toArray()).rejects.toMatchObject({ code: grpc.status.INVALID_ARGUMENT });
});

test('requests of a bidi stream are handled one at a time, however fast they come', async () => {
  let active = 0;
  let most = 0;
  await using served = await serve({
    Talk: {
      kind: 'bidi',
      handle: async function* (_ctx, requests) {
        for await (const request of requests) {
          most = Math.max(most, ++active);
          await new Promise((resolve) => setImmediate(resolve));
          active--;
          yield request;
        }
      },
    },
  });
  const stream = openBidi(served, 'Talk');
  for (let index = 0; index < 50; index++) stream.write(Buffer.of(index));
  stream.end();
  const answers: number[] = [];
  for await (const answer of stream) answers.push(Buffer.from(answer)[0] ?? -1);
  expect(answers).toEqual(Array.from({ length: 50 }, (_, index) => index));
  expect(most).toBe(1);
});

test('a handler that does not ask is not flooded: the client is held back', async () => {
  const first = moment();
  const release = moment();
  let handled = 0;
  await using served = await serve({
    Talk: {
      kind: 'bidi',
      handle: async function* (_ctx, requests) {
        for await (const request of requests) {
          handled++;
          first.resolve();
          await release.promise;
          yield request.subarray(0, 1);
        }
      },
    },
  });
  const stream = openBidi(served, 'Talk');
  const message = Buffer.alloc(8 * MiB);
  let written = 0;
  const allWritten = moment();
  for (let index = 0; index < 12; index++) {
    stream.write(message, () => {
      if (++written === 12) allWritten.resolve();
    });
  }
  stream.end();
  await first.promise;
  // A unary call behind it shows that the connection is idle: whatever could be written has been.
  await call(served, 'Echo', Buffer.alloc(0)).catch(() => undefined);
  expect(handled).toBe(1);
  expect(written).toBeLessThan(6);
  release.resolve();
  expect(await stream.toArray()).toHaveLength(12);
  await allWritten.promise;
});

test('what a bidi handler holds is free before the client sees the status', async () => {
  let held = 0;
  await using served = await serve({
    Hold: {
      kind: 'bidi',
      handle: async function* (_ctx, requests) {
        held++;
        try {
          for await (const request of requests) {
            if (request[0] === 1) throw new OpError('OutOfRange', 'one');
            if (request[0] === 2) return;
            yield request;
          }
        } finally {
          await new Promise((resolve) => setTimeout(resolve, 5));
          held--;
        }
      },
    },
  });
  for (const [first, code] of [
    [1, grpc.status.OUT_OF_RANGE],
    [2, grpc.status.OK],
    [0, grpc.status.OK],
  ]) {
    const stream = openBidi(served, 'Hold');
    const status = new Promise<grpc.StatusObject>((resolve) => stream.on('status', resolve));
    stream.on('error', () => undefined);
    stream.resume();
    stream.write(Buffer.of(first ?? 0));
    if (first === 0) stream.end();
    expect((await status).code).toBe(code);
    expect(held).toBe(0);
  }
});

test('a bidi handler ends when its client is gone, also while it waits for a request', async () => {
  const begun = moment();
  const ended = moment();
  await using served = await serve({
    Hold: {
      kind: 'bidi',
      handle: async function* (_ctx, requests) {
        begun.resolve();
        try {
          for await (const request of requests) yield request;
        } finally {
          ended.resolve();
        }
      },
    },
  });
  const stream = openBidi(served, 'Hold');
  stream.on('error', () => undefined);
  await begun.promise;
  stream.cancel();
  await ended.promise;
  expect(served.defects).toEqual([]);
});

test('hundreds of streams are open at once on one connection', async () => {
  await using served = await serve({
    Echo: echo,
    Talk: {
      kind: 'bidi',
      handle: async function* (_ctx, requests) {
        for await (const request of requests) yield request;
      },
    },
  });
  const streams = Array.from({ length: 600 }, () => openBidi(served, 'Talk'));
  const answers = streams.map((stream) => new Promise((resolve) => stream.once('data', resolve)));
  for (const stream of streams) stream.write(Buffer.from('x'));
  await Promise.all(answers);
  expect(await call(served, 'Echo', Buffer.from('y'))).toEqual(Buffer.from('y'));
  for (const stream of streams) stream.end();
});

test('closing lets calls under way finish, and refuses new ones', async () => {
  const begun = moment();
  const release = moment();
  const served = await serve({
    Slow: {
      kind: 'unary',
      handle: async (_ctx, request) => {
        begun.resolve();
        await release.promise;
        return request;
      },
    },
  });
  const slow = call(served, 'Slow', Buffer.from('x'));
  await begun.promise;
  const closed = served.server.close({ graceMs: 5000 });
  release.resolve();
  expect(await slow).toEqual(Buffer.from('x'));
  await closed;
  await expect(call(served, 'Slow', Buffer.from('x'))).rejects.toMatchObject({
    code: grpc.status.UNAVAILABLE,
  });
  await served[Symbol.asyncDispose]();
});

test('closing cuts off what does not end in time, and waits for its handler', async () => {
  const begun = moment();
  let finished = false;
  const served = await serve({
    Wait: {
      kind: 'unary',
      handle: async (ctx, request) => {
        begun.resolve();
        await abortOf(ctx);
        await new Promise((resolve) => setImmediate(resolve));
        finished = true;
        return request;
      },
    },
  });
  const waiting = call(served, 'Wait', Buffer.from('x'));
  waiting.catch(() => undefined);
  await begun.promise;
  await served.server.close({ graceMs: 50 });
  expect(finished).toBe(true);
  await expect(waiting).rejects.toMatchObject({ name: 'Error' });
  await served[Symbol.asyncDispose]();
});
