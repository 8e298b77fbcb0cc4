import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { GrpcServer } from './server.ts';

const asItIs = (bytes: Buffer): Buffer => bytes;

test('a client may cancel thousands of streams in a row and keeps its connection', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'resets-'));
  const server = new GrpcServer({ onDefect: () => {} });
  server.serve([
    {
      name: 'test.Test',
      methods: {
        Stream: {
          kind: 'serverStream',
          handle: async function* ({ signal }, request) {
            yield request;
            await once(signal, 'abort');
          },
        },
      },
    },
  ]);
  const path = join(directory, 'x.sock');
  const listener = createServer().listen(path);
  let connections = 0;
  listener.on('connection', () => connections++);
  await once(listener, 'listening');
  server.attach(listener);
  const client = new grpc.Client(`unix:${path}`, grpc.credentials.createInsecure());

  for (let cancelled = 0; cancelled < 2000; cancelled++) {
    const request = Buffer.from('read');
    const stream = client.makeServerStreamRequest('/test.Test/Stream', asItIs, asItIs, request);
    stream.on('error', () => {});
    expect(await once(stream, 'data')).toEqual([request]);
    stream.cancel();
  }
  expect(connections).toBe(1);

  client.close();
  await server.close({ graceMs: 100 });
  await rm(directory, { recursive: true });
});
