import type { Totals } from './gc.ts';

/** Counts things and their bytes, by type. */
export class Tally {
  readonly #totals = new Map<string, { count: number; bytes: number }>();

  add(type: string, bytes: number, count = 1): void {
    const total = this.#totals.get(type) ?? { count: 0, bytes: 0 };
    total.count += count;
    total.bytes += bytes;
    this.#totals.set(type, total);
  }

  get totals(): Totals {
    return this.#totals;
  }
}
