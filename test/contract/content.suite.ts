import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { background } from '../../src/base/context.ts';
import { digestOf, parseDigest, type Digest } from '../../src/base/digest.ts';
import type { Announced, ContentStore } from '../../src/content/content.ts';
import { collect } from '../support/collect.ts';
import { bytesOf } from '../support/random.ts';
import { refuses, type Suite } from './suite.ts';

const ctx = background;
const none: ReadonlyMap<string, string> = new Map();
const hello = Buffer.from('hello');
const absent = digestOf('sha256', '0'.repeat(64));

const digest = (bytes: Buffer, algorithm: 'sha256' | 'sha384' | 'sha512' = 'sha256'): Digest =>
  digestOf(algorithm, createHash(algorithm).update(bytes).digest('hex'));

async function put(
  store: ContentStore,
  bytes: Buffer,
  announced: Announced = {},
  labels = none,
): Promise<Digest> {
  await using writer = await store.writer(ctx, `ref ${Math.random()}`, announced);
  for (let at = 0; at < bytes.length; at += 1 << 20) {
    await writer.write(at, Buffer.from(bytes.subarray(at, at + (1 << 20))));
  }
  return await writer.commit(labels);
}

/** A chunk is the reader's until he asks for the next one. */
async function get(store: ContentStore, blob: Digest, offset = 0, size = 0): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of store.read(ctx, blob, offset, size)) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

async function whatIsCommittedIsThere(store: ContentStore): Promise<void> {
  for (const size of [0, 1, 4096, 65_536, 65_537, 3 << 20]) {
    const bytes = bytesOf(size, size);
    const labels = new Map([['size', String(size)]]);
    const blob = await put(store, bytes, { total: size, expected: digest(bytes) }, labels);
    assert.equal(blob, digest(bytes));
    const info = await store.info(ctx, blob);
    assert.deepEqual([info.digest, info.size, [...info.labels]], [blob, size, [...labels]]);
    assert.equal(info.createdAt, info.updatedAt);
    assert.ok((await get(store, blob)).equals(bytes));
  }
  assert.deepEqual(await store.statuses(ctx, []), []);
}

async function anyAlgorithmMayBeExpected(store: ContentStore): Promise<void> {
  const bytes = bytesOf(1, 100_000);
  for (const algorithm of ['sha384', 'sha512'] as const) {
    const expected = digest(bytes, algorithm);
    assert.equal(await put(store, bytes, { expected }), expected);
    assert.ok((await get(store, expected)).equals(bytes));
  }
  // The hash of nothing, from BLAKE3's test vectors.
  const nothing = parseDigest(
    'blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262',
  );
  await refuses('FailedPrecondition', put(store, bytes, { expected: nothing }), /blake3/);
  assert.equal(await put(store, Buffer.alloc(0), { expected: nothing }), nothing);
}

async function anAlgorithmNamedLateCoversTheBytesBefore(store: ContentStore): Promise<void> {
  const bytes = bytesOf(2, 200_000);
  await using writer = await store.writer(ctx, 'ref', {});
  await writer.write(0, Buffer.from(bytes.subarray(0, 150_000)));
  await writer.announce({ expected: digest(bytes, 'sha512') });
  await writer.write(150_000, Buffer.from(bytes.subarray(150_000)));
  assert.equal(await writer.commit(none), digest(bytes, 'sha512'));
}

async function rangesAreExact(store: ContentStore): Promise<void> {
  for (const size of [1000, 2_500_000]) {
    const bytes = bytesOf(3, size);
    const blob = await put(store, bytes);
    for (const [offset, length] of [
      [0, 1],
      [1, 0],
      [size - 1, 1],
      [size - 1, 100],
      [17, size >> 1],
      [size, 0],
      [size, 5],
    ] as const) {
      const end = length === 0 ? size : offset + length;
      assert.ok(
        (await get(store, blob, offset, length)).equals(bytes.subarray(offset, end)),
        `${offset} ${length}`,
      );
    }
    await refuses('OutOfRange', get(store, blob, size + 1));
  }
  await refuses('NotFound', get(store, absent), /0000/);
}

async function aWriterResumesWhereTheLastOneStopped(store: ContentStore): Promise<void> {
  for (const size of [10, 300_000]) {
    const bytes = bytesOf(size, size);
    const half = size >> 1;
    {
      await using writer = await store.writer(ctx, 'ref', { total: size });
      await writer.write(0, Buffer.from(bytes.subarray(0, half)));
    }
    const left = await store.status(ctx, 'ref');
    assert.deepEqual([left.offset, left.total], [half, size]);
    await using writer = await store.writer(ctx, 'ref', {});
    const { offset, total, startedAt, digest: held } = writer.status();
    assert.deepEqual([offset, total, startedAt], [half, 0, left.startedAt]);
    assert.equal(held, digest(bytes.subarray(0, half)));
    await writer.write(half, Buffer.from(bytes.subarray(half)));
    assert.equal(await writer.commit(none), digest(bytes));
    await refuses('NotFound', store.status(ctx, 'ref'), /ref/);
  }
}

async function offsetsAreTheEndOrZero(store: ContentStore): Promise<void> {
  {
    await using writer = await store.writer(ctx, 'ref', {});
    await writer.write(0, Buffer.from(hello));
    await refuses('OutOfRange', writer.write(3, Buffer.from(hello)));
  }
  assert.equal((await store.status(ctx, 'ref')).offset, hello.length);
  await using writer = await store.writer(ctx, 'ref', {});
  await writer.write(0, Buffer.from('anew'));
  assert.equal(writer.status().offset, 4);
  assert.equal(await writer.commit(none), digest(Buffer.from('anew')));
}

async function wrongSizesAndDigestsAreRefusedAndTheBytesKept(store: ContentStore): Promise<void> {
  for (const announced of [{ total: 6 }, { expected: absent }]) {
    {
      await using writer = await store.writer(ctx, 'ref', announced);
      await writer.write(0, Buffer.from(hello));
      await refuses('FailedPrecondition', writer.commit(none));
    }
    assert.equal((await store.status(ctx, 'ref')).offset, hello.length);
    await store.abort(ctx, 'ref');
  }
  assert.deepEqual(await collect(store.walk(ctx, [])), []);
}

async function aBlobThatIsThereIsNotWrittenAgain(store: ContentStore): Promise<void> {
  const blob = await put(store, hello, {}, new Map([['first', 'yes']]));
  await refuses('AlreadyExists', store.writer(ctx, 'known', { expected: blob }), /2cf24/);
  await refuses('AlreadyExists', put(store, hello));
  {
    await using writer = await store.writer(ctx, 'late', {});
    await refuses('AlreadyExists', writer.announce({ expected: blob }));
  }
  assert.deepEqual(await store.statuses(ctx, ['ref==late']), []);
  assert.deepEqual([...(await store.info(ctx, blob)).labels], [['first', 'yes']]);
}

async function aRefHasOneWriter(store: ContentStore): Promise<void> {
  const writer = await store.writer(ctx, 'ref', {});
  await refuses('Unavailable', store.writer(ctx, 'ref', {}), /ref/);
  await refuses('Unavailable', store.abort(ctx, 'ref'), /ref/);
  await writer[Symbol.asyncDispose]();
  await (await store.writer(ctx, 'ref', {}))[Symbol.asyncDispose]();
  await store.abort(ctx, 'ref');
  await refuses('NotFound', store.status(ctx, 'ref'));
  await store.abort(ctx, 'ref');
}

async function openIngestsAreListed(store: ContentStore): Promise<void> {
  assert.deepEqual(await store.statuses(ctx, []), []);
  await using one = await store.writer(ctx, 'one', { total: 9 });
  await using two = await store.writer(ctx, 'two', {});
  await one.write(0, Buffer.from(hello));
  const all = await store.statuses(ctx, []);
  assert.deepEqual(all.map((status) => [status.ref, status.offset, status.total]).toSorted(), [
    ['one', 5, 9],
    ['two', 0, 0],
  ]);
  assert.deepEqual(
    (await store.statuses(ctx, ['ref==two'])).map((status) => status.ref),
    ['two'],
  );
  assert.equal((await store.status(ctx, 'one')).startedAt, one.status().startedAt);
  assert.equal(two.status().offset, 0);
  await refuses('InvalidArgument', store.statuses(ctx, ['ref=two']));
}

async function updateChangesLabelsOnly(store: ContentStore): Promise<void> {
  const blob = await put(
    store,
    hello,
    {},
    new Map([
      ['a', '1'],
      ['b', '2'],
    ]),
  );
  const before = await store.info(ctx, blob);
  const set = (labels: [string, string][], ...paths: string[]) =>
    store.update(ctx, { digest: blob, labels: new Map(labels) }, paths);
  const after = await set([['a', '3']], 'labels.a');
  assert.deepEqual([...after.labels].toSorted(), [
    ['a', '3'],
    ['b', '2'],
  ]);
  assert.equal(after.createdAt, before.createdAt);
  assert.ok(after.updatedAt > before.updatedAt);
  assert.deepEqual(await store.info(ctx, blob), after);
  await refuses('InvalidArgument', set([], 'size'));
  assert.equal((await set([], 'labels')).labels.size, 0);
  await refuses('NotFound', store.update(ctx, { digest: absent, labels: none }, []));
}

async function filtersChoose(store: ContentStore): Promise<void> {
  const one = await put(store, hello, {}, new Map([['containerd.io/gc.root', 'yes']]));
  const two = await put(store, Buffer.from('two'));
  const walked = async (...filters: string[]) =>
    (await collect(store.walk(ctx, filters))).map((info) => info.digest);
  assert.deepEqual((await walked()).toSorted(), [one, two].toSorted());
  assert.deepEqual(await walked('labels."containerd.io/gc.root"'), [one]);
  assert.deepEqual(await walked(`digest==${two}`), [two]);
  assert.deepEqual(await walked('size==5'), []);
  await refuses('InvalidArgument', walked('digest='));
}

async function aDeletedBlobIsGoneAndItsReadersKeepTheirBytes(store: ContentStore): Promise<void> {
  const bytes = bytesOf(5, 4 << 20);
  const blob = await put(store, bytes);
  const reader = store.read(ctx, blob, 0, 0)[Symbol.asyncIterator]();
  const first = await reader.next();
  assert.ok(!first.done);
  const got = [Buffer.from(first.value)];
  await store.delete(ctx, blob);
  await refuses('NotFound', store.info(ctx, blob));
  for (let next = await reader.next(); !next.done; next = await reader.next()) {
    got.push(Buffer.from(next.value));
  }
  assert.ok(Buffer.concat(got).equals(bytes));
  await store.delete(ctx, blob);
  assert.equal(await put(store, bytes), blob);
}

async function readsThatStopInTheMiddleHurtNobody(store: ContentStore): Promise<void> {
  const bytes = bytesOf(6, 8 << 20);
  const blob = await put(store, bytes);
  for (let n = 0; n < 20; n++) {
    for await (const chunk of store.read(ctx, blob, n, 0)) {
      assert.ok(bytes.subarray(n, n + chunk.length).equals(chunk));
      break;
    }
  }
  assert.ok((await get(store, blob)).equals(bytes));
}

async function manyWritersAtOnceKeepApart(store: ContentStore): Promise<void> {
  const blobs = Array.from({ length: 40 }, (_, n) => bytesOf(100 + n, n * 5000));
  const digests = await Promise.all(blobs.map((bytes) => put(store, bytes)));
  assert.deepEqual(
    digests,
    blobs.map((bytes) => digest(bytes)),
  );
}

async function equalBlobsAtOnceGiveOneBlob(store: ContentStore): Promise<void> {
  const results = await Promise.allSettled(Array.from({ length: 16 }, () => put(store, hello)));
  assert.equal(results.filter((result) => result.status === 'fulfilled').length, 1);
  for (const result of results) {
    if (result.status === 'rejected') await refuses('AlreadyExists', Promise.reject(result.reason));
  }
}

async function refsAreTextAndNothingElse(store: ContentStore): Promise<void> {
  const nasty = [
    '../../x',
    '/',
    '.',
    'a\0b',
    '__proto__',
    'constructor',
    ' ',
    'ü ☃',
    'x'.repeat(10_000),
  ];
  for (const ref of nasty) {
    await using writer = await store.writer(ctx, ref, {});
    await writer.write(0, Buffer.from(ref));
  }
  assert.deepEqual(
    (await store.statuses(ctx, [])).map((status) => status.ref).toSorted(),
    nasty.toSorted(),
  );
  for (const ref of nasty) {
    await using writer = await store.writer(ctx, ref, {});
    assert.equal(await writer.commit(none), digest(Buffer.from(ref)));
  }
  await refuses('InvalidArgument', store.writer(ctx, '', {}));
}

export async function emptyContent(store: ContentStore): Promise<void> {
  for (const { ref } of await store.statuses(ctx, [])) await store.abort(ctx, ref);
  for await (const info of store.walk(ctx, [])) await store.delete(ctx, info.digest);
  assert.deepEqual(await collect(store.walk(ctx, [])), []);
}

export const contentSuite: Suite<ContentStore> = [
  whatIsCommittedIsThere,
  anyAlgorithmMayBeExpected,
  anAlgorithmNamedLateCoversTheBytesBefore,
  rangesAreExact,
  aWriterResumesWhereTheLastOneStopped,
  offsetsAreTheEndOrZero,
  wrongSizesAndDigestsAreRefusedAndTheBytesKept,
  aBlobThatIsThereIsNotWrittenAgain,
  aRefHasOneWriter,
  openIngestsAreListed,
  updateChangesLabelsOnly,
  filtersChoose,
  aDeletedBlobIsGoneAndItsReadersKeepTheirBytes,
  readsThatStopInTheMiddleHurtNobody,
  manyWritersAtOnceKeepApart,
  equalBlobsAtOnceGiveOneBlob,
  refsAreTextAndNothingElse,
];
