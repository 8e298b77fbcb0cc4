import * as grpc from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { OpError } from '../../src/base/errors.ts';
import { abortOf, asItIs, call, echo, MiB, moment, serve } from '../support/served.ts';

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
