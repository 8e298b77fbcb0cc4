// HTTP/2 frame by frame: what breaks its rules ends with the code of RFC 9113, and what keeps them is
// served whatever the windows and however the bytes are cut.
import { once } from 'node:events';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ERROR } from '../../src/grpc/http2/errors.ts';
import { FLAG, FRAME, frame, SETTING, settingsFrame } from '../../src/grpc/http2/frames.ts';
import { message, numbered, PREFACE, RawClient, requestFields } from '../support/raw-http2.ts';
import { call, echo, moment, serve, serveAll, type Served } from '../support/served.ts';

const ECHO = requestFields('/test.Test/Echo');
const NOTHING = Buffer.alloc(0);
/** A beginning that lets the server send whatever it has. */
const WIDE_WINDOWS = Buffer.concat([
  PREFACE,
  settingsFrame([[SETTING.initialWindow, 2 ** 30]]),
  frame(FRAME.windowUpdate, 0, 0, numbered(2 ** 30)),
]);

const open = (client: RawClient, stream: number, flags: number = FLAG.endHeaders): void =>
  client.send(FRAME.headers, flags, stream, ECHO);

async function stillServes(served: Served): Promise<void> {
  const request = Buffer.from('others are served');
  expect(await call(served, 'Echo', request)).toEqual(request);
  expect(served.defects).toEqual([]);
}

type Cases = Record<string, readonly [code: number, send: (client: RawClient) => void]>;

const END_THE_CONNECTION: Cases = {
  'DATA on a stream that has not begun': [
    ERROR.protocol,
    (client) => client.send(FRAME.data, 0, 1, NOTHING),
  ],
  'DATA on no stream': [ERROR.protocol, (client) => client.send(FRAME.data, 0, 0, NOTHING)],
  "HEADERS on a server's stream": [ERROR.protocol, (client) => open(client, 2)],
  'RST_STREAM of a stream that has not begun': [
    ERROR.protocol,
    (client) => client.send(FRAME.rstStream, 0, 7, numbered(8)),
  ],
  'another frame within a header block': [
    ERROR.protocol,
    (client) => {
      open(client, 1, 0);
      client.send(FRAME.ping, 0, 0, Buffer.alloc(8));
    },
  ],
  'CONTINUATION of nothing': [
    ERROR.protocol,
    (client) => client.send(FRAME.continuation, FLAG.endHeaders, 1, ECHO),
  ],
  'a header block without an end': [
    ERROR.enhanceYourCalm,
    (client) => {
      open(client, 1, 0);
      for (let n = 0; n < 20; n++) client.send(FRAME.continuation, 0, 1, Buffer.alloc(16_000));
    },
  ],
  'empty CONTINUATION frames without an end': [
    ERROR.enhanceYourCalm,
    (client) => {
      open(client, 1, 0);
      for (let n = 0; n < 20_000; n++) client.send(FRAME.continuation, 0, 1, NOTHING);
    },
  ],
  'fields that are no HPACK': [
    ERROR.compression,
    (client) => client.send(FRAME.headers, FLAG.endHeaders, 1, Buffer.of(0x80)),
  ],
  'more padding than payload': [
    ERROR.protocol,
    (client) => {
      open(client, 1);
      client.send(FRAME.data, FLAG.padded, 1, Buffer.of(9, 0, 0));
    },
  ],
  PUSH_PROMISE: [ERROR.protocol, (client) => client.send(FRAME.pushPromise, 4, 1, ECHO)],
  'SETTINGS of a broken length': [
    ERROR.frameSize,
    (client) => client.send(FRAME.settings, 0, 0, Buffer.alloc(5)),
  ],
  'SETTINGS on a stream': [ERROR.protocol, (client) => client.send(FRAME.settings, 0, 1, NOTHING)],
  'SETTINGS with too large a window': [
    ERROR.flowControl,
    (client) => client.socket.write(settingsFrame([[SETTING.initialWindow, 2 ** 31]])),
  ],
  'SETTINGS with too small a frame': [
    ERROR.protocol,
    (client) => client.socket.write(settingsFrame([[SETTING.frameBytesMax, 100]])),
  ],
  'PING of a broken length': [
    ERROR.frameSize,
    (client) => client.send(FRAME.ping, 0, 0, Buffer.alloc(7)),
  ],
  'WINDOW_UPDATE of 0': [
    ERROR.protocol,
    (client) => client.send(FRAME.windowUpdate, 0, 0, numbered(0)),
  ],
  "WINDOW_UPDATE beyond the connection's window": [
    ERROR.flowControl,
    (client) => client.send(FRAME.windowUpdate, 0, 0, numbered(2 ** 31 - 1)),
  ],
  'a frame larger than announced': [
    ERROR.frameSize,
    (client) => client.send(FRAME.data, 0, 1, Buffer.alloc(16_385)),
  ],
};

describe('ends the connection', () => {
  for (const [what, [code, send]] of Object.entries(END_THE_CONNECTION)) {
    test(what, async () => {
      await using served = await serve({ Echo: echo });
      await using client = await RawClient.connect(served.socketPath);
      send(client);
      expect(await client.goAwayCode()).toBe(code);
      await client.closed;
      await stillServes(served);
    });
  }

  test('a beginning that is not HTTP/2, or without SETTINGS', async () => {
    await using served = await serve({ Echo: echo });
    const http1 = Buffer.from('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n');
    const noSettings = Buffer.concat([PREFACE, frame(FRAME.ping, 0, 0, Buffer.alloc(8))]);
    for (const beginning of [http1, noSettings]) {
      await using client = await RawClient.connect(served.socketPath, beginning);
      expect(await client.goAwayCode()).toBe(ERROR.protocol);
    }
    await stillServes(served);
  });
});

const END_THE_STREAM: Cases = {
  'DATA after the end': [
    ERROR.streamClosed,
    (client) => {
      open(client, 1);
      client.send(FRAME.data, FLAG.endStream, 1, message(5).subarray(0, 3));
      client.send(FRAME.data, 0, 1, message(1));
    },
  ],
  'WINDOW_UPDATE of 0': [
    ERROR.protocol,
    (client) => {
      open(client, 1);
      client.send(FRAME.windowUpdate, 0, 1, numbered(0));
    },
  ],
  'WINDOW_UPDATE beyond its window': [
    ERROR.flowControl,
    (client) => {
      open(client, 1);
      client.send(FRAME.windowUpdate, 0, 1, numbered(2 ** 31 - 1));
    },
  ],
  'HEADERS in the middle': [
    ERROR.protocol,
    (client) => {
      open(client, 1);
      open(client, 1);
    },
  ],
  'a request without a path': [
    ERROR.protocol,
    (client) => client.send(FRAME.headers, FLAG.endHeaders, 1, Buffer.of(0x83)),
  ],
};

describe('ends the stream alone', () => {
  for (const [what, [code, send]] of Object.entries(END_THE_STREAM)) {
    test(what, async () => {
      await using served = await serve({ Echo: echo });
      await using client = await RawClient.connect(served.socketPath);
      send(client);
      const ended = await client.find(
        ({ type, stream }) => stream === 1 && (type === FRAME.rstStream || type === FRAME.headers),
      );
      // Half a message is an answer of its own, which may come first.
      if (ended?.type === FRAME.rstStream) expect(ended.payload.readUInt32BE()).toBe(code);
      open(client, 3);
      client.send(FRAME.data, FLAG.endStream, 3, message(10));
      const answer = await client.find(({ type, stream }) => type === FRAME.data && stream === 3);
      expect(answer?.payload).toEqual(message(10));
    });
  }

  test('more data than its window, while its handler does not ask for any', async () => {
    const called = moment();
    await using served = await serve({
      Echo: echo,
      Hold: {
        kind: 'bidi',
        handle: async function* (ctx) {
          called.resolve();
          await once(ctx.signal, 'abort');
          yield* [];
        },
      },
    });
    await using client = await RawClient.connect(served.socketPath);
    client.send(FRAME.headers, FLAG.endHeaders, 1, requestFields('/test.Test/Hold'));
    await called.promise;
    // One message is read ahead; of what comes behind it, the window is the limit.
    for (let sent = 0; sent < 4 << 20; sent += 16_384) {
      client.send(FRAME.data, 0, 1, sent === 0 ? message(16_379) : Buffer.alloc(16_384, 1));
    }
    expect(await client.resetCode(1)).toBe(ERROR.flowControl);
    await stillServes(served);
  });
});

test('handlers that do not ask for more hold up no other call of their connection', async () => {
  let held = 0;
  const all = moment();
  await using served = await serve({
    Echo: echo,
    Hold: {
      kind: 'bidi',
      handle: async function* (ctx) {
        if (++held === 20) all.resolve();
        await once(ctx.signal, 'abort');
        yield* [];
      },
    },
  });
  await using client = await RawClient.connect(served.socketPath);
  for (let n = 0; n < 20; n++) {
    client.send(FRAME.headers, FLAG.endHeaders, 2 * n + 1, requestFields('/test.Test/Hold'));
    const bytes = message((1 << 20) - 5);
    for (let at = 0; at < bytes.length; at += 16_384) {
      client.send(FRAME.data, 0, 2 * n + 1, bytes.subarray(at, at + 16_384));
    }
  }
  await all.promise;
  open(client, 101);
  client.send(FRAME.data, FLAG.endStream, 101, message(3));
  const answer = await client.find(({ type, stream }) => type === FRAME.data && stream === 101);
  expect(answer?.payload).toEqual(message(3));
  // The credit for all of it has come, so a real client would go on, too.
  const credit = client.frames
    .filter(({ type, stream }) => type === FRAME.windowUpdate && stream === 0)
    .reduce((sum, { payload }) => sum + payload.readUInt32BE(), 65_535);
  expect(credit).toBeGreaterThan(20 << 20);
});

test('arbitrary bytes end their connection and nothing else', async () => {
  await using served = await serve({ Echo: echo });
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(11), fc.nat(255), fc.nat(4), fc.uint8Array({ maxLength: 40 }))),
      fc.uint8Array({ maxLength: 60 }),
      async (frames, tail) => {
        await using client = await RawClient.connect(served.socketPath);
        for (const [type, flags, stream, payload] of frames) {
          client.send(type, flags, stream, payload);
        }
        client.socket.end(tail);
        await client.find(() => false);
      },
    ),
    { numRuns: 300 },
  );
  await stillServes(served);
});

test('a broken rule ends the calls of its connection, also when the client does not read', async () => {
  const called = moment();
  const ended = moment();
  await using served = await serve({
    Stream: {
      kind: 'serverStream',
      handle: async function* () {
        try {
          called.resolve();
          for (;;) yield Buffer.alloc(1 << 20);
        } finally {
          ended.resolve();
        }
      },
    },
  });
  await using client = await RawClient.connect(served.socketPath, WIDE_WINDOWS);
  client.socket.pause();
  client.send(FRAME.headers, FLAG.endHeaders, 1, requestFields('/test.Test/Stream'));
  client.send(FRAME.data, FLAG.endStream, 1, message(1));
  client.send(FRAME.settings, 0, 1, NOTHING);
  await called.promise;
  await ended.promise;
  expect(served.defects).toEqual([]);
});

test('a client that sends PINGs and SETTINGS and reads nothing has no hold on our memory', async () => {
  await using served = await serve({ Echo: echo });
  await using client = await RawClient.connect(served.socketPath);
  client.socket.pause();
  const flood = Buffer.concat(
    Array.from({ length: 1000 }, () => [
      frame(FRAME.ping, 0, 0, Buffer.alloc(8)),
      settingsFrame([]),
    ]).flat(),
  );
  for (let n = 0; n < 2000; n++) client.socket.write(flood);
  // Time enough to read all of it, were it read.
  for (let n = 0; n < 1000; n++) await stillServes(served);
  expect(client.socket.writableLength).toBeGreaterThan(40 << 20);
});

test('every byte comes, however small the windows, and no more than they allow', async () => {
  await using served = await serve({ Echo: echo });
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: 70_000 }),
      fc.array(fc.integer({ min: 200, max: 30_000 }), { minLength: 1, maxLength: 10 }),
      fc.integer({ min: 0, max: 100_000 }),
      async (window, credits, length) => {
        const beginning = Buffer.concat([
          PREFACE,
          settingsFrame([[SETTING.initialWindow, window]]),
        ]);
        await using client = await RawClient.connect(served.socketPath, beginning);
        open(client, 1);
        const request = message(length);
        for (let at = 0; at < request.length; at += 16_384) {
          client.send(FRAME.data, 0, 1, request.subarray(at, at + 16_384));
        }
        client.send(FRAME.data, FLAG.endStream, 1, NOTHING);
        let allowed = window;
        let connectionAllowed = 65_535;
        const received = (): number =>
          client.frames
            .filter(({ type }) => type === FRAME.data)
            .reduce((sum, { payload }) => sum + payload.length, 0);
        for (let turn = 0; received() < request.length; turn++) {
          const credit = credits[turn % credits.length] ?? 1;
          client.send(FRAME.windowUpdate, 0, 1, numbered(credit));
          client.send(FRAME.windowUpdate, 0, 0, numbered(credit));
          allowed += credit;
          connectionAllowed += credit;
          await client.ping();
          const most = Math.min(allowed, connectionAllowed, request.length);
          expect(received()).toBeLessThanOrEqual(most);
          // All that is allowed comes, to the byte.
          await client.find(() => received() === most);
        }
        const data = client.frames.filter(({ type }) => type === FRAME.data);
        expect(Buffer.concat(data.map(({ payload }) => payload)).equals(request)).toBe(true);
        const end = await client.find(({ flags, type }) => type === FRAME.headers && flags === 5);
        expect(end?.payload.toString('latin1')).toContain('grpc-status');
      },
    ),
    { numRuns: 40 },
  );
});

test('the memory of a message is left alone until the kernel has taken all of it', async () => {
  const length = 60 * 16_384 + 1000;
  const turns = 20;
  await using served = await serve({
    Echo: echo,
    Stream: {
      kind: 'serverStream',
      handle: async function* () {
        const buffer = Buffer.alloc(length);
        for (let turn = 0; turn < turns; turn++) yield [buffer.fill(turn)];
      },
    },
  });
  await using client = await RawClient.connect(served.socketPath, WIDE_WINDOWS);
  client.socket.pause();
  client.send(FRAME.headers, FLAG.endHeaders, 1, requestFields('/test.Test/Stream'));
  client.send(FRAME.data, FLAG.endStream, 1, message(1));
  // Time enough for the handler to go on, could it.
  for (let n = 0; n < 20; n++) await stillServes(served);
  client.socket.resume();
  await client.find(({ type, flags }) => type === FRAME.headers && flags === 5);
  const data = client.frames.filter(({ type }) => type === FRAME.data);
  const bytes = Buffer.concat(data.map(({ payload }) => payload));
  for (let turn = 0; turn < turns; turn++) {
    const start = turn * (5 + length) + 5;
    expect(bytes.subarray(start, start + length).equals(Buffer.alloc(length, turn))).toBe(true);
  }
});

test('a request cut anywhere, padded, with priority and in CONTINUATION frames, is the same request', async () => {
  await using served = await serve({ Echo: echo });
  const head = Buffer.concat([Buffer.of(3, 0, 0, 0, 0, 16), ECHO.subarray(0, 20), Buffer.alloc(3)]);
  const body = Buffer.concat([Buffer.of(4), message(100), Buffer.alloc(4)]);
  const bytes = Buffer.concat([
    frame(FRAME.headers, FLAG.padded | FLAG.priority, 1, head),
    frame(FRAME.continuation, 0, 1, ECHO.subarray(20, 30)),
    frame(FRAME.continuation, FLAG.endHeaders, 1, ECHO.subarray(30)),
    frame(99, 255, 1, Buffer.from('unknown frames are ignored')),
    frame(FRAME.priority, 0, 1, Buffer.alloc(5)),
    frame(FRAME.data, FLAG.padded | FLAG.endStream, 1, body),
  ]);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 1, max: bytes.length })), async (cuts) => {
      await using client = await RawClient.connect(served.socketPath);
      const ends = [...new Set([...cuts, bytes.length])].toSorted((a, b) => a - b);
      for (let index = 0, from = 0; index < ends.length; from = ends[index++] ?? 0) {
        client.socket.write(bytes.subarray(from, ends[index]));
        // So that the next part comes on its own.
        await new Promise((resolve) => setImmediate(resolve));
      }
      const answer = await client.find(({ type }) => type === FRAME.data);
      expect(answer?.payload).toEqual(message(100));
    }),
    { numRuns: 60 },
  );
});

test('a client is greeted while the server starts, and its calls wait', async () => {
  await using served = await serveAll(undefined);
  await using client = await RawClient.connect(served.socketPath);
  expect((await client.find(({ type }) => type === FRAME.settings))?.flags).toBe(0);
  open(client, 1);
  client.send(FRAME.data, FLAG.endStream, 1, message(3));
  open(client, 3);
  client.send(FRAME.rstStream, 0, 3, numbered(ERROR.cancel));
  await client.ping();
  expect(client.frames.some(({ type }) => type === FRAME.headers)).toBe(false);
  served.server.serve([{ name: 'test.Test', methods: { Echo: echo } }]);
  const answer = await client.find(({ type }) => type === FRAME.data);
  expect(answer?.payload).toEqual(message(3));
  await client.ping();
  expect(client.frames.some(({ stream }) => stream === 3)).toBe(false);
});

test('closing lets a running call end, refuses new ones and then closes the connection', async () => {
  const called = moment();
  const go = moment();
  await using served = await serve({
    Echo: {
      kind: 'unary',
      handle: async (_ctx, request) => {
        called.resolve();
        await go.promise;
        return request;
      },
    },
  });
  await using client = await RawClient.connect(served.socketPath);
  open(client, 1);
  client.send(FRAME.data, FLAG.endStream, 1, message(3));
  await called.promise;
  const closing = served.server.close({ graceMs: 60_000 });
  expect(await client.goAwayCode()).toBe(ERROR.none);
  open(client, 3);
  expect(await client.resetCode(3)).toBe(ERROR.refusedStream);
  go.resolve();
  const answer = await client.find(({ type }) => type === FRAME.data);
  expect(answer?.payload).toEqual(message(3));
  await closing;
  await client.closed;
});

test('the last answer comes whole, also when its client sends PINGs, as Go does, while it leaves', async () => {
  const called = moment();
  const go = moment();
  const length = 900_000;
  await using served = await serve({
    Large: {
      kind: 'unary',
      handle: async () => {
        called.resolve();
        await go.promise;
        return Buffer.alloc(length, 7);
      },
    },
  });
  await using client = await RawClient.connect(served.socketPath, WIDE_WINDOWS);
  client.send(FRAME.headers, FLAG.endHeaders, 1, requestFields('/test.Test/Large'));
  client.send(FRAME.data, FLAG.endStream, 1, message(1));
  await called.promise;
  const closing = served.server.close({ graceMs: 60_000 });
  await client.goAwayCode();
  client.socket.pause();
  go.resolve();
  // The server has ended its side by then, and most of the answer waits for the client.
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  client.send(FRAME.ping, 0, 0, Buffer.alloc(8));
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  client.socket.resume();
  const end = await client.find(({ type, flags }) => type === FRAME.headers && flags === 5);
  expect(end?.stream).toBe(1);
  const data = client.frames.filter(({ type }) => type === FRAME.data);
  expect(data.reduce((sum, { payload }) => sum + payload.length, 0)).toBe(5 + length);
  await closing;
});
