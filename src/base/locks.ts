/** Mutual exclusion by key. Waiting is first come, first served; a key nobody holds costs nothing. */
export class KeyedLocks {
  /** The last holder or waiter of each key: whoever comes next waits for it. */
  readonly #tails = new Map<string, Promise<void>>();

  isHeld(key: string): boolean {
    return this.#tails.has(key);
  }

  /** Runs `work` while holding all keys. */
  async with<T>(keys: readonly string[], work: () => Promise<T>): Promise<T> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const held = new Set(keys);
    const before: Promise<void>[] = [];
    for (const key of held) {
      const tail = this.#tails.get(key);
      if (tail !== undefined) before.push(tail);
      this.#tails.set(key, promise);
    }
    try {
      // All tails were replaced in one turn, so holders form one order and no cycle can arise.
      if (before.length > 0) await Promise.all(before);
      return await work();
    } finally {
      for (const key of held) if (this.#tails.get(key) === promise) this.#tails.delete(key);
      resolve();
    }
  }
}
