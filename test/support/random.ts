import { randomInt } from 'node:crypto';

/** A repeatable source of numbers; the seed is printed by the tests that use it. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** From 0 up to, not including, `end`. (mulberry32) */
  below(end: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * end);
  }

  chance(probability: number): boolean {
    return this.below(1_000_000) < probability * 1_000_000;
  }

  pick<T>(items: readonly T[]): T | undefined {
    return items[this.below(items.length)];
  }
}

/** BALLAST_SEED, or a fresh one. */
export function testSeed(): number {
  const given = process.env['BALLAST_SEED'];
  return given ? Number(given) : randomInt(2 ** 31);
}

/** A number from the environment, for runs longer than CI's. */
export const numberFromEnv = (name: string, inCi: number): number =>
  Number(process.env[name] ?? inCi);

/** The bytes that a seed stands for: cheap to make again, no two seeds alike. */
export function bytesOf(seed: number, size: number): Buffer {
  const block = Buffer.alloc(Math.min(size, 4096));
  const random = new Random(seed);
  for (let at = 0; at < block.length; at++) block[at] = random.below(256);
  const bytes = Buffer.alloc(size, block);
  for (let at = 0; at + 8 <= size; at += 4096) bytes.writeUInt32LE(at, at);
  if (size >= 4) bytes.writeUInt32LE(seed >>> 0, 0);
  return bytes;
}
