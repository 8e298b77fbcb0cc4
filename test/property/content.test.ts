// The property: after any sequence of content requests, with the daemon ended or killed and started
// again in between, every answer (offsets, digests, sizes, labels, times, bytes read, error codes) is
// that of a small model in memory.
//
// PROPERTY_SECONDS sets the time, BALLAST_SEED repeats a run.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { digestOf, type Digest } from '../../src/base/digest.ts';
import { withoutEmptyLabels, type Labels } from '../../src/base/labels.ts';
import type { Announced, Info, Writer } from '../../src/content/content.ts';
import { collect } from '../support/collect.ts';
import { Daemon } from '../support/daemon.ts';
import { bytesOf } from '../support/random.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { ContentModel, digestBytes, type Ingest } from './content-model.ts';
import {
  fieldPaths,
  holds,
  judged,
  labels,
  NASTY_NAMES,
  PROPERTY_MS,
  updatedLabels,
} from './property.ts';

/** A killed daemon may lose an ingest of at most this many bytes: it may hold them in memory until then. */
const UNWRITTEN_BYTES_MAX = 64 << 10;

const CHUNKS = [
  Buffer.alloc(0),
  Buffer.from('abc'),
  Buffer.from('d'),
  bytesOf(1, 70_000),
  bytesOf(2, 1_200_000),
];

const ref = fc.constantFrom(...NASTY_NAMES.slice(2, 7));
const anyRef = fc.oneof({ weight: 30, arbitrary: ref }, { weight: 1, arbitrary: fc.constant('') });
/** Of what: the bytes held now, a blob that is there, nothing that will ever be; or not announced. */
const expected = fc.constantFrom('none', 'none', 'none', 'held', 'held sha512', 'there', 'wrong');
const total = fc.constantFrom('none', 'none', 'held', 'wrong');
const blob = fc.nat(5);

const operation = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      op: fc.constant('open' as const),
      ref: anyRef,
      expected,
      total: fc.constantFrom('none', 'none', 'held'),
    }),
  },
  {
    weight: 14,
    arbitrary: fc.record({
      op: fc.constant('write' as const),
      ref,
      where: fc.constantFrom('end', 'end', 'end', 'start', 'beyond'),
      chunk: fc.nat(CHUNKS.length - 1),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constant('announce' as const), ref, expected, total }),
  },
  { weight: 10, arbitrary: fc.record({ op: fc.constant('commit' as const), ref, labels }) },
  { weight: 4, arbitrary: fc.record({ op: fc.constantFrom('close', 'abort', 'status'), ref }) },
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constant('read' as const),
      blob,
      from: fc.nat(4),
      size: fc.constantFrom(0, 1, 3, 65_536, 2_000_000),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('update' as const), blob, labels, paths: fieldPaths }),
  },
  { weight: 3, arbitrary: fc.record({ op: fc.constantFrom('delete', 'info'), blob }) },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('list' as const),
      filter: fc.constantFrom('', 'labels.a', 'labels."a.b/c"==1', 'digest~=^sha512', 'size==3'),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('restart' as const),
      signal: fc.constantFrom('SIGTERM' as const, 'SIGKILL' as const),
    }),
  },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

test(
  'any sequence of content requests and restarts is answered as the model says',
  () =>
    holds(operation, async (operations) => {
      await using folder = await temporaryFolder('content');
      const run = new Run(await Daemon.start({ root: folder.path, snapshotter: 'overlayfs' }));
      try {
        for (const operation of operations) await run.perform(operation);
        await run.compare('');
      } finally {
        await run.daemon[Symbol.asyncDispose]();
      }
    }),
  PROPERTY_MS + 600_000,
);

class Run {
  readonly #model = new ContentModel();
  readonly #writers = new Map<string, Writer>();
  daemon: Daemon;

  constructor(daemon: Daemon) {
    this.daemon = daemon;
  }

  async perform(operation: Operation): Promise<void> {
    switch (operation.op) {
      case 'open':
        return this.#open(operation.ref, operation.expected, operation.total);
      case 'write':
        return this.#write(
          operation.ref,
          operation.where,
          CHUNKS[operation.chunk] ?? Buffer.alloc(0),
        );
      case 'announce':
        return this.#announce(operation.ref, operation.expected, operation.total);
      case 'commit':
        return this.#commit(operation.ref, operation.labels);
      case 'read':
        return this.#read(this.#digest(operation.blob), operation.from, operation.size);
      case 'update':
        return this.#update(this.#digest(operation.blob), operation.labels, operation.paths);
      case 'list':
        return this.compare(operation.filter);
      case 'restart':
        return this.#restart(operation.signal);
      default:
        return 'ref' in operation
          ? this.#ingest(operation.op, operation.ref)
          : this.#blob(operation.op, this.#digest(operation.blob));
    }
  }

  get #content() {
    return this.daemon.client.content;
  }

  /** One of the blobs there, or one that never was. */
  #digest(index: number): Digest {
    return [...this.#model.blobs.keys()][index] ?? digestOf('sha256', 'ab'.repeat(32));
  }

  #announced(ref: string, expected: string, total: string): Announced {
    const held = this.#model.ingests.get(ref)?.bytes ?? Buffer.alloc(0);
    const digests: Record<string, Digest | undefined> = {
      held: digestBytes(held),
      'held sha512': digestBytes(held, 'sha512'),
      there: [...this.#model.blobs.keys()][0],
      wrong: digestOf('sha256', '12'.repeat(32)),
    };
    const digest = digests[expected];
    const size = { held: held.length, wrong: held.length + 1 }[total] ?? 0;
    return { ...(digest && { expected: digest }), ...(size > 0 && { total: size }) };
  }

  async #open(ref: string, expected: string, total: string): Promise<void> {
    const announced = this.#announced(ref, expected, total);
    const verdict = this.#model.open(ref, announced);
    const done = await judged(verdict, `open ${ref} ${JSON.stringify(announced)}`, () =>
      this.#content.writer(background, ref, announced),
    );
    if (!done) return;
    const status = done.answer.status();
    const ingest = this.#model.ingests.get(ref) ?? {
      bytes: Buffer.alloc(0),
      total: announced.total ?? 0,
      startedAt: status.startedAt,
      stream: undefined,
    };
    ingest.stream = { expected: announced.expected, total: announced.total ?? 0 };
    this.#model.ingests.set(ref, ingest);
    this.#writers.set(ref, done.answer);
    this.#held(ref, ingest, done.answer);
  }

  /** What a writer says is what the model holds. */
  #held(ref: string, ingest: Ingest, writer: Writer): void {
    const { offset, total, startedAt, digest, updatedAt } = writer.status();
    const { bytes } = ingest;
    const expected = {
      ref,
      offset: bytes.length,
      total: ingest.stream?.total,
      startedAt: ingest.startedAt,
    };
    assert.deepEqual({ ref: writer.status().ref, offset, total, startedAt }, expected);
    // The digest of another algorithm may run along; that of sha256 is always right.
    if (digest.startsWith('sha256:')) assert.equal(digest, digestBytes(bytes), `digest of ${ref}`);
    assert.ok(updatedAt >= startedAt);
  }

  /** The open stream of a ref, in the model and for real. */
  #stream(ref: string): { ingest: Ingest; writer: Writer } | undefined {
    const ingest = this.#model.ingests.get(ref);
    const writer = this.#writers.get(ref);
    return ingest?.stream && writer ? { ingest, writer } : undefined;
  }

  /** After any refusal a stream can only be closed. */
  async #close(ref: string): Promise<void> {
    const writer = this.#writers.get(ref);
    this.#writers.delete(ref);
    const ingest = this.#model.ingests.get(ref);
    if (ingest) ingest.stream = undefined;
    await writer?.[Symbol.asyncDispose]();
  }

  async #write(ref: string, where: string, data: Buffer): Promise<void> {
    const stream = this.#stream(ref);
    if (!stream) return;
    const { ingest, writer } = stream;
    const end = ingest.bytes.length;
    const offset = where === 'end' ? end : where === 'start' ? 0 : end + 7;
    const verdict = this.#model.write(ingest, offset, data);
    // The writer owns what it is given.
    const done = await judged(verdict, `write ${data.length} bytes at ${offset} of ${end}`, () =>
      writer.write(offset, Buffer.from(data)),
    );
    if (done) this.#held(ref, ingest, writer);
    else await this.#close(ref);
  }

  async #announce(ref: string, expected: string, total: string): Promise<void> {
    const stream = this.#stream(ref);
    if (!stream) return;
    const announced = this.#announced(ref, expected, total);
    const verdict = this.#model.announce(ref, announced);
    const done = await judged(verdict, `announce ${JSON.stringify(announced)}`, () =>
      stream.writer.announce(announced),
    );
    if (done) this.#held(ref, stream.ingest, stream.writer);
    else await this.#close(ref);
  }

  async #commit(ref: string, labels: Labels): Promise<void> {
    const stream = this.#stream(ref);
    if (!stream) return;
    const { ingest, writer } = stream;
    const digest = this.#model.digest(ingest);
    const verdict = this.#model.commit(ref, ingest);
    const done = await judged(verdict, `commit ${ingest.bytes.length} bytes`, () =>
      writer.commit(labels),
    );
    await this.#close(ref);
    if (!done) return;
    assert.equal(done.answer, digest);
    const info = await this.#content.info(background, digest);
    assert.equal(info.createdAt, info.updatedAt);
    const { createdAt, updatedAt } = info;
    const blob = { bytes: ingest.bytes, labels: withoutEmptyLabels(labels), createdAt, updatedAt };
    this.#model.blobs.set(digest, blob);
    this.#same(info);
  }

  async #ingest(op: string, ref: string): Promise<void> {
    if (op === 'close') return this.#close(ref);
    if (op === 'abort') {
      await judged(this.#model.abort(ref), `abort ${ref}`, () =>
        this.#content.abort(background, ref),
      );
      return;
    }
    const ingest = this.#model.ingests.get(ref);
    const done = await judged(ingest ? [] : ['NotFound'], `status ${ref}`, () =>
      this.#content.status(background, ref),
    );
    if (!done || !ingest) return;
    const { offset, total, startedAt } = done.answer;
    assert.equal(offset, ingest.bytes.length);
    assert.equal(startedAt, ingest.startedAt);
    assert.equal(total, ingest.total);
  }

  async #blob(op: string, digest: Digest): Promise<void> {
    const there = this.#model.blobs.has(digest);
    if (op === 'delete') {
      await judged([], `delete ${digest}`, () => this.#content.delete(background, digest));
      this.#model.blobs.delete(digest);
      return;
    }
    const done = await judged(there ? [] : ['NotFound'], `info ${digest}`, () =>
      this.#content.info(background, digest),
    );
    if (done) this.#same(done.answer);
  }

  async #read(digest: Digest, from: number, size: number): Promise<void> {
    const bytes = this.#model.blobs.get(digest)?.bytes;
    const length = bytes?.length ?? 0;
    const offset = [0, 1, length >> 1, length, length + 1][from] ?? 0;
    const refused = !bytes
      ? (['NotFound'] as const)
      : offset > length
        ? (['OutOfRange'] as const)
        : [];
    const done = await judged(refused, `read ${size} at ${offset} of ${length}`, () =>
      collect(this.#content.read(background, digest, offset, size)),
    );
    if (!done || !bytes) return;
    const end = size === 0 ? length : offset + size;
    assert.ok(
      Buffer.concat(done.answer).equals(bytes.subarray(offset, end)),
      'the bytes asked for',
    );
  }

  async #update(digest: Digest, labels: Labels, paths: readonly string[]): Promise<void> {
    const blob = this.#model.blobs.get(digest);
    const updated = updatedLabels(blob?.labels ?? new Map(), labels, paths);
    const verdict = [
      ...(blob ? [] : (['NotFound'] as const)),
      ...(updated ? [] : (['InvalidArgument'] as const)),
    ];
    const done = await judged(verdict, `update ${digest} ${paths.join()}`, () =>
      this.#content.update(background, { digest, labels }, paths),
    );
    if (!done || !blob || !updated) return;
    assert.ok(done.answer.updatedAt >= blob.updatedAt);
    blob.labels = updated;
    blob.updatedAt = done.answer.updatedAt;
    this.#same(done.answer);
  }

  #same(info: Info): void {
    const blob = this.#model.blobs.get(info.digest);
    assert.ok(blob, `${info.digest} is there`);
    const { labels, createdAt, updatedAt } = blob;
    const { digest } = info;
    assert.deepEqual(info, {
      digest,
      size: blob.bytes.length,
      createdAt,
      updatedAt,
      labels: new Map(labels),
    });
  }

  async compare(filter: string): Promise<void> {
    const matches = (digest: Digest, labels: Labels): boolean => {
      if (filter === 'labels.a') return labels.has('a');
      if (filter.startsWith('labels."a.b')) return labels.get('a.b/c') === '1';
      return filter === '' || (filter.startsWith('digest') && digest.startsWith('sha512'));
    };
    const expected = [...this.#model.blobs]
      .filter(([digest, { labels }]) => matches(digest, labels))
      .map(([digest]) => digest);
    const listed = await collect(this.#content.walk(background, [filter]));
    assert.deepEqual(listed.map((info) => info.digest).toSorted(), expected.toSorted(), filter);
    for (const info of listed) this.#same(info);
    const statuses = await this.#content.statuses(background, []);
    const refs = statuses.map((status) => status.ref).toSorted();
    assert.deepEqual(refs, [...this.#model.ingests.keys()].toSorted());
    for (const { ref, offset } of statuses) {
      assert.equal(offset, this.#model.ingests.get(ref)?.bytes.length, `offset of ${ref}`);
    }
  }

  async #restart(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    // A daemon that is asked to end waits for the streams.
    if (signal === 'SIGTERM') for (const ref of this.#writers.keys()) await this.#close(ref);
    const old = this.daemon;
    await old.stop(signal);
    for (const ref of this.#writers.keys()) await this.#close(ref);
    await old[Symbol.asyncDispose]();
    this.daemon = await Daemon.start(old.options);
    if (signal === 'SIGKILL') await this.#lost();
    return this.compare('');
  }

  /** Takes over what a kill may lose: the few bytes held in memory, or the whole ingest with them. */
  async #lost(): Promise<void> {
    const statuses = await this.#content.statuses(background, []);
    const offsets = new Map(statuses.map((status) => [status.ref, status.offset]));
    for (const [ref, ingest] of this.#model.ingests) {
      const offset = offsets.get(ref);
      if (ingest.bytes.length > UNWRITTEN_BYTES_MAX) continue;
      if (offset === undefined) this.#model.ingests.delete(ref);
      else ingest.bytes = ingest.bytes.subarray(0, offset);
    }
  }
}
