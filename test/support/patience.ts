/** How long a start or an end of the daemon may take before a test gives up on it. */
export const PATIENCE_MS = 30_000;

/** The promise's outcome, or a failure when it takes too long: tests end in time to clean up. */
export async function within<T>(limitMs: number, what: string, promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`${what}: not within ${limitMs} ms`)), limitMs);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
