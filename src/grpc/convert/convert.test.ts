// What goes over the wire comes back as it was.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ALGORITHMS, digestOf } from '../../base/digest.ts';
import { containerd } from '../gen/wire.js';
import * as content from './content.ts';
import * as snapshots from './snapshots.ts';
import { timestampFromWire, timestampToWire } from './timestamps.ts';

const text = fc.string({ unit: 'grapheme', maxLength: 40 });
const labels = fc
  .array(fc.tuple(fc.oneof(text, fc.constantFrom('__proto__', 'constructor', '0')), text))
  .map((entries) => new Map(entries));
const time = fc.bigInt({ min: -(10n ** 18n), max: 10n ** 19n });
const bytes = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const digest = fc.constantFrom(...ALGORITHMS).chain((algorithm) => {
  const length = { sha256: 64, sha384: 96, sha512: 128, blake3: 64 }[algorithm];
  const hex = fc.string({
    unit: fc.constantFrom(...Array.from('0123456789abcdef')),
    minLength: length,
    maxLength: length,
  });
  return hex.map((digits) => digestOf(algorithm, digits));
});
const times = { createdAt: time, updatedAt: time };

test('a blob', () => {
  const { Info } = containerd.services.content.v1;
  fc.assert(
    fc.property(fc.record({ digest, size: bytes, labels, ...times }), (info) => {
      const wire = Info.encode(content.infoToWire(info)).finish();
      expect(content.infoFromWire(Info.decode(wire))).toEqual(info);
    }),
  );
});

test('an ingest', () => {
  const { Status } = containerd.services.content.v1;
  const status = { ref: text, offset: bytes, total: bytes, startedAt: time, updatedAt: time };
  fc.assert(
    fc.property(fc.record(status), (ingest) => {
      const wire = Status.encode(content.statusToWire(ingest)).finish();
      expect(content.statusFromWire(Status.decode(wire))).toEqual(ingest);
    }),
  );
});

test('a snapshot', () => {
  const { Info } = containerd.services.snapshots.v1;
  const kind = fc.constantFrom('view' as const, 'active' as const, 'committed' as const);
  fc.assert(
    fc.property(fc.record({ name: text, parent: text, kind, labels, ...times }), (info) => {
      const wire = Info.encode(snapshots.infoToWire(info)).finish();
      expect(snapshots.infoFromWire(Info.decode(wire))).toEqual(info);
    }),
  );
});

test('mounts', () => {
  const { MountsResponse } = containerd.services.snapshots.v1;
  const mount = fc.record({ type: text, source: text, options: fc.array(text) });
  fc.assert(
    fc.property(fc.array(mount), (mounts) => {
      const wire = MountsResponse.encode({ mounts: snapshots.mountsToWire(mounts) }).finish();
      expect(snapshots.mountsFromWire(MountsResponse.decode(wire).mounts)).toEqual(mounts);
    }),
  );
});

test('a time, also before 1970', () => {
  fc.assert(
    fc.property(time, (nanoseconds) => {
      const wire = timestampToWire(nanoseconds);
      expect(wire.nanos).toBeGreaterThanOrEqual(0);
      expect(timestampFromWire(wire)).toBe(nanoseconds);
    }),
  );
});

test('what is missing or unknown is InvalidArgument, never a default', () => {
  const refused = expect.objectContaining({ code: 'InvalidArgument' });
  expect(() => content.infoFromWire(null)).toThrow(refused);
  expect(() => content.infoFromWire({ digest: 'sha256:xyz' })).toThrow(refused);
  expect(() => content.statusFromWire(undefined)).toThrow(refused);
  expect(() => content.announcedFromWire({ total: 1, expected: 'md5:00' })).toThrow(refused);
  expect(() => content.checkAction(3)).toThrow(refused);
  expect(() => snapshots.infoFromWire({ name: 'x' })).toThrow(refused);
  const ofKind9 = containerd.services.snapshots.v1.Info.decode(Buffer.of(0x18, 9));
  expect(() => snapshots.infoFromWire(ofKind9)).toThrow(refused);
});
