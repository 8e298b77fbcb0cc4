import { expect, test } from 'vitest';
import { containerd } from '../gen/wire.js';
import { labelsFromWire, labelsToWire } from './labels.ts';

const { Info } = containerd.services.snapshots.v1;

/** Field 6 (labels) with one entry, written by hand as another implementation would. */
function encodedLabel(key: string, value: string): Buffer {
  const field = (tag: number, content: Buffer): Buffer =>
    Buffer.concat([Buffer.from([tag, content.length]), content]);
  return field(
    0x32,
    Buffer.concat([field(0x0a, Buffer.from(key)), field(0x12, Buffer.from(value))]),
  );
}

const HOSTILE = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '', 'é', '0'];
const LABELS = new Map(HOSTILE.map((key, index) => [key, `value ${index}`]));

test('label keys that name members of Object survive decoding', () => {
  const bytes = Buffer.concat([...LABELS].map(([key, value]) => encodedLabel(key, value)));
  expect(labelsFromWire(Info.decode(bytes).labels)).toEqual(LABELS);
});

test('label keys that name members of Object survive encoding', () => {
  const bytes = Buffer.from(Info.encode({ labels: labelsToWire(LABELS) }).finish());
  for (const [key, value] of LABELS) expect(bytes.includes(encodedLabel(key, value))).toBe(true);
});

test('no labels on the wire are no labels', () => {
  expect(labelsFromWire(Info.decode(new Uint8Array()).labels).size).toBe(0);
});

test('an int64 is decoded to a number, also beyond 32 bits and below zero', () => {
  const { UsageResponse } = containerd.services.snapshots.v1;
  for (const size of [0, 1, -1, 2 ** 31, 2 ** 40, Number.MAX_SAFE_INTEGER]) {
    expect(UsageResponse.decode(UsageResponse.encode({ size, inodes: 1 }).finish()).size).toBe(
      size,
    );
  }
});
