import fc from 'fast-check';
import { isOpError, type ErrorCode } from '../../src/base/errors.ts';
import { numberFromEnv, testSeed } from '../support/random.ts';

/** How long the runs of one property may take, shrinking aside. */
export const PROPERTY_MS = numberFromEnv('PROPERTY_SECONDS', 45) * 1000;

/** Names that are legal and that careless code trips over. */
export const NASTY_NAMES: readonly string[] = [
  'a',
  'b',
  'c/d',
  '../../../../tmp/proof-escape',
  '__proto__',
  'constructor',
  'spaces, commas: and = signs',
  'NUL \0 inside',
  'snow ☃ and 𝕒stral',
  `long ${'x'.repeat(10_000)}`,
];

/** Label maps with keys and values that careless code trips over; an empty value is "not set". */
export const labels = fc
  .uniqueArray(
    fc.tuple(
      fc.constantFrom('a', 'a.b/c', '__proto__', 'constructor', 'containerd.io/snapshot.ref'),
      fc.constantFrom('1', '2', '', 'ünï', '{"json":true}'),
    ),
    { selector: ([key]) => key, maxLength: 3 },
  )
  .map((entries) => new Map(entries));

export const fieldPaths: fc.Arbitrary<readonly string[]> = fc.constantFrom(
  [],
  ['labels'],
  ['labels.a'],
  ['labels.a.b/c'],
  ['labels.__proto__', 'labels.a'],
  ['labels', 'labels.constructor'],
  ['parent'],
  ['labels.a', 'kind'],
  ['Labels'],
);

/** What Update makes of the labels there; undefined when it refuses the paths. */
export function updatedLabels(
  present: ReadonlyMap<string, string>,
  given: ReadonlyMap<string, string>,
  paths: readonly string[],
): Map<string, string> | undefined {
  let labels = new Map(present);
  if (paths.length === 0) labels = new Map(given);
  for (const path of paths) {
    if (path === 'labels') labels = new Map(given);
    else if (path.startsWith('labels.')) {
      const key = path.slice('labels.'.length);
      labels.set(key, given.get(key) ?? '');
    } else return undefined;
  }
  return new Map([...labels].filter(([, value]) => value !== ''));
}

/** Refused with one of these codes; none: done. */
export type Verdict = readonly ErrorCode[];
export const DONE: Verdict = [];

/** Makes a request and holds it against the model's verdict. @returns its answer when it was done, as it should */
export async function judged<T>(
  verdict: Verdict,
  what: string,
  request: () => Promise<T>,
): Promise<{ readonly answer: T } | undefined> {
  try {
    const answer = await request();
    if (verdict.length === 0) return { answer };
  } catch (error) {
    if (isOpError(error) && verdict.includes(error.code)) return undefined;
    const code = isOpError(error) ? error.code : 'no OpError';
    throw new Error(`${what}: ${code}, expected ${verdict.join(' or ') || 'success'}`, {
      cause: error,
    });
  }
  throw new Error(`${what}: success, expected ${verdict.join(' or ')}`);
}

/** Runs a property over sequences of operations; the seed of a failure goes into BALLAST_SEED. */
export async function holds<Op>(
  operation: fc.Arbitrary<Op>,
  run: (operations: readonly Op[]) => Promise<void>,
): Promise<void> {
  const seed = testSeed();
  process.stdout.write(`BALLAST_SEED=${seed}\n`);
  let running = Promise.resolve();
  const sequence = fc.array(operation, { maxLength: 120, size: 'max' });
  const property = fc.asyncProperty(sequence, (operations) => (running = run(operations)));
  await fc.assert(property, {
    seed,
    numRuns: 1_000_000,
    interruptAfterTimeLimit: PROPERTY_MS,
    markInterruptAsFailure: false,
    endOnFailure: Boolean(process.env['PROPERTY_NO_SHRINK']),
  });
  // The time limit leaves a sequence in the middle, with its daemon.
  await running;
}
