import { expect, test } from 'vitest';
import { durationOf, expiryOf } from './labels.ts';

test('times are those of RFC 3339, anything else is none', () => {
  const expiry = (text: string): bigint | undefined =>
    expiryOf(new Map([['containerd.io/gc.expire', text]]));
  expect(expiry('1970-01-01T00:00:01Z')).toBe(1_000_000_000n);
  expect(expiry('1970-01-01T01:00:01.5+01:00')).toBe(1_500_000_000n);
  expect(expiry('1970-01-01T00:00:01.000000001Z')).toBe(1_000_000_001n);
  for (const text of [
    '',
    'tomorrow',
    '2026-01-01',
    '2026-01-01T00:00:00',
    '1970-13-01T00:00:00Z',
  ]) {
    expect(expiry(text), text).toBeUndefined();
  }
  expect(expiryOf(new Map())).toBeUndefined();
});

test('durations are as Go writes them', () => {
  expect(durationOf('1h30m')).toBe(5_400_000_000_000n);
  expect(durationOf('1.5s')).toBe(1_500_000_000n);
  expect(durationOf('-2ms')).toBe(-2_000_000n);
  expect(durationOf('0')).toBe(0n);
  for (const text of ['', '5', '1d', 'h', '1h x']) expect(durationOf(text), text).toBeUndefined();
});
