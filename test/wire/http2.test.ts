// What clients do on the wire that no proper gRPC client does.
import * as http2 from 'node:http2';
import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { echo, serve } from '../support/served.ts';
import type { Served } from '../support/served.ts';

interface Answer {
  readonly status: number;
  /** From the trailers, or the headers where there are only those. */
  readonly grpcStatus: string;
  readonly message: string;
  readonly body: Buffer;
}

const GRPC = { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' };

async function post(
  { socketPath }: Served,
  headers: http2.OutgoingHttpHeaders,
  chunks: readonly Buffer[],
): Promise<Answer> {
  const session = http2.connect('http://localhost', {
    createConnection: () => connect(socketPath),
  });
  const stream = session.request({ ...GRPC, ...headers }, { endStream: false });
  stream.on('error', () => undefined);
  const responded = new Promise<http2.IncomingHttpHeaders>((resolve) =>
    stream.once('response', resolve),
  );
  const trailers: http2.IncomingHttpHeaders = {};
  stream.once('trailers', (received) => Object.assign(trailers, received));
  const body: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => body.push(chunk));
  for (const chunk of chunks) {
    stream.write(chunk);
    // Each in a DATA frame of its own.
    await new Promise((resolve) => setImmediate(resolve));
  }
  stream.end();
  const first = await responded;
  await new Promise((resolve) => stream.once('close', resolve));
  session.close();
  return {
    status: Number(first[':status']),
    grpcStatus: String(trailers['grpc-status'] ?? first['grpc-status'] ?? ''),
    message: decodeURI(String(trailers['grpc-message'] ?? first['grpc-message'] ?? '')),
    body: Buffer.concat(body),
  };
}

function framed(text: string, flag = 0): Buffer {
  const prefix = Buffer.alloc(5);
  prefix[0] = flag;
  prefix.writeUInt32BE(text.length, 1);
  return Buffer.concat([prefix, Buffer.from(text)]);
}

const ECHO = { ':path': '/test.Test/Echo' };

test('a message may come in any pieces', async () => {
  await using served = await serve({ Echo: echo });
  const bytes = framed('hello');
  for (const pieces of [
    [bytes],
    [bytes.subarray(0, 1), bytes.subarray(1)],
    [bytes.subarray(0, 4), bytes.subarray(4, 5), bytes.subarray(5)],
    Array.from(bytes, (byte) => Buffer.of(byte)),
  ]) {
    expect(await post(served, ECHO, pieces)).toEqual({
      status: 200,
      grpcStatus: '0',
      message: '',
      body: bytes,
    });
  }
});

test('several messages in one piece are several requests', async () => {
  await using served = await serve({
    Talk: {
      kind: 'bidi',
      handle: async function* (_ctx, requests) {
        for await (const request of requests) yield request;
      },
    },
  });
  const bytes = Buffer.concat([framed('one'), framed(''), framed('three')]);
  const answer = await post(served, { ':path': '/test.Test/Talk' }, [bytes]);
  expect(answer).toMatchObject({ grpcStatus: '0', body: bytes });
});

test('a compressed, a cut off and a missing message are refused', async () => {
  await using served = await serve({ Echo: echo });
  expect(await post(served, ECHO, [framed('x', 1)])).toMatchObject({ grpcStatus: '12' });
  expect(await post(served, ECHO, [framed('hello').subarray(0, 7)])).toMatchObject({
    grpcStatus: '3',
    message: 'the request ends within a message',
  });
  expect(await post(served, ECHO, [framed('hello').subarray(0, 2)])).toMatchObject({
    grpcStatus: '3',
  });
  expect(await post(served, ECHO, [])).toMatchObject({ grpcStatus: '3' });
});

test('a length beyond the limit is refused before its bytes have come', async () => {
  await using served = await serve({ Echo: echo });
  expect(await post(served, ECHO, [Buffer.from([0, 255, 255, 255, 255])])).toMatchObject({
    grpcStatus: '8',
  });
});

test('what is not gRPC is answered as HTTP', async () => {
  await using served = await serve({ Echo: echo });
  expect(await post(served, { ...ECHO, 'content-type': 'text/plain' }, [])).toMatchObject({
    status: 415,
  });
});

test('a path that is not served is Unimplemented, whatever it holds', async () => {
  await using served = await serve({ Echo: echo });
  for (const path of [
    '/',
    '/test.Test',
    '/__proto__/constructor',
    `/${'x'.repeat(10_000)}`,
    '/%00',
  ]) {
    expect(await post(served, { ':path': path }, [framed('x')])).toMatchObject({
      grpcStatus: '12',
    });
  }
});

test('a deadline that makes no sense is none; one far away does not pass at once', async () => {
  await using served = await serve({ Echo: echo });
  for (const timeout of ['99999999H', 'soon', '-1S', '1.5S', '']) {
    expect(await post(served, { ...ECHO, 'grpc-timeout': timeout }, [framed('x')])).toMatchObject({
      grpcStatus: '0',
    });
  }
});
