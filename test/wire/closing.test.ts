import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import * as grpc from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { abortOf, call, echo, moment, serve } from '../support/served.ts';

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

test('closing does not wait for a connection that was gone before it was served', async () => {
  await using served = await serve({ Echo: echo });
  const listener = createServer();
  const path = `${served.socketPath}.second`;
  await new Promise<void>((resolve) => listener.listen(path, resolve));
  const held = new Promise<Socket>((resolve) => listener.once('connection', resolve));
  connect(path).destroy();
  const socket = await held;
  await new Promise((resolve) => socket.resume().once('close', resolve));
  served.server.attach(listener);
  listener.emit('connection', socket);
  await served.server.close({ graceMs: 60_000 });
});

test('a connection may wait, with its first bytes, until it is served', async () => {
  await using served = await serve({ Echo: echo });
  const listener = createServer();
  const path = `${served.socketPath}.second`;
  await new Promise<void>((resolve) => listener.listen(path, resolve));
  const held = new Promise<Socket>((resolve) => listener.once('connection', resolve));
  const client = new grpc.Client(`unix:${path}`, grpc.credentials.createInsecure());
  const answer = call({ client }, 'Echo', Buffer.from('x'));
  const socket = await held;
  await new Promise((resolve) => socket.once('readable', resolve));
  served.server.attach(listener);
  listener.emit('connection', socket);
  expect(await answer).toEqual(Buffer.from('x'));
  client.close();
});

test('bytes that are not gRPC close their connection and no other', async () => {
  await using served = await serve({ Echo: echo });
  const socket = connect(served.socketPath);
  socket.on('error', () => undefined);
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  socket.resume();
  await new Promise((resolve) => socket.once('close', resolve));
  expect(await call(served, 'Echo', Buffer.from('x'))).toEqual(Buffer.from('x'));
});
