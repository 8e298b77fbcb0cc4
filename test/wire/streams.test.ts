import { once } from 'node:events';
import * as grpc from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { OpError } from '../../src/base/errors.ts';
import { NO_LABELS } from '../../src/base/labels.ts';
import type { Labels } from '../../src/base/labels.ts';
import { containerd } from '../../src/grpc/gen/wire.js';
import { serverStream } from '../../src/grpc/service.ts';
import { packed } from '../../src/grpc/services/packing.ts';
import { call, echo, MiB, moment, openBidi, openStream, serve } from '../support/served.ts';

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
          await new Promise((resolve) => setImmediate(resolve));
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
  // Streams that the server's end finds open fail, whoever listens.
  const ends = streams.map((stream) => once(stream, 'end'));
  for (const stream of streams) stream.end();
  await Promise.all(ends);
});

test('a long list from memory does not keep other calls waiting', async () => {
  let listed = 0;
  async function* infos(): AsyncIterable<{ name: string; labels: Labels }> {
    for (; listed < 100_000; listed++) yield { name: `snapshot ${listed}`, labels: NO_LABELS };
  }
  const { ListSnapshotsRequest, ListSnapshotsResponse } = containerd.services.snapshots.v1;
  await using served = await serve({
    Echo: echo,
    List: serverStream(ListSnapshotsRequest, ListSnapshotsResponse, () =>
      packed(infos(), (info) => ({ info: info.map(({ name }) => ({ name })) })),
    ),
  });
  const stream = openStream(served, 'List', Buffer.alloc(0));
  await new Promise((resolve) => stream.once('data', resolve));
  await call(served, 'Echo', Buffer.from('x'));
  expect(listed).toBeLessThan(100_000);
  await stream.resume().toArray();
});
