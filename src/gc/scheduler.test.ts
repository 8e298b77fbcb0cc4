import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Clock } from '../base/clock.ts';
import { NO_LABELS } from '../base/labels.ts';
import { silentLog } from '../base/log.ts';
import type { MetadataStore } from '../metadata/metadata.ts';
import type { Collectible, Node, RootRule } from './collectible.ts';
import { Collector } from './collector.ts';
import { GC_DEFAULTS, Scheduler, type GcConfig } from './scheduler.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const clock: Clock = { now: () => BigInt(Date.now()) * 1_000_000n };
/** At the default pause_threshold, after runs that take no time: 5 ms are to be 2%. */
const REST_MS = 245;

/** Things of one kind; nothing refers to them. */
class Things implements Collectible {
  readonly type = 'ingests';
  readonly roots = new Map<string, RootRule>();
  *nodes(): Iterable<Node> {
    for (const key of this.roots.keys()) yield thing(key);
  }
  find(_namespace: string, key: string) {
    const root = this.roots.get(key);
    return root === undefined
      ? undefined
      : { root, createdAt: 0n, labels: NO_LABELS, refersTo: [] };
  }
  discard(_tx: unknown, _namespace: string, key: string) {
    this.roots.delete(key);
    return () => undefined;
  }
}

const thing = (key: string): Node => ({ type: 'ingests', namespace: 'here', key });

const metadata: Pick<MetadataStore, 'update'> = {
  update: async (change) =>
    change({
      put: () => undefined,
      delete: () => undefined,
      keep: () => undefined,
      onRollback: () => undefined,
    }),
};

function started(config: Partial<GcConfig> = {}) {
  const things = new Things();
  const collector = new Collector({ metadata, clock });
  collector.add(things);
  const run = vi.spyOn(collector, 'run');
  const scheduler = new Scheduler(
    { ...GC_DEFAULTS, ...config },
    { collector, clock, log: silentLog },
  );
  scheduler.start();
  return { things, scheduler, runs: () => run.mock.calls.length };
}
const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

test('a run follows start-up, and an idle scheduler has no timer', async () => {
  const { runs } = started();
  await pass(99);
  expect(runs()).toBe(0);
  await pass(5);
  expect(runs()).toBe(1);
  expect(vi.getTimerCount()).toBe(0);
});

test('a removal brings about a run: at once after a rest, else when the rest is over', async () => {
  const { scheduler, runs } = started();
  await pass(1000);
  scheduler.freed();
  await pass(5);
  expect(runs()).toBe(2);
  scheduler.freed();
  scheduler.freed();
  await pass(REST_MS - 10);
  expect(runs()).toBe(2);
  await pass(20);
  expect(runs()).toBe(3);
  expect(vi.getTimerCount()).toBe(0);
});

test('changes bring about a run when they are enough', async () => {
  const { scheduler, runs } = started({ mutationThreshold: 3, startupDelayMs: 0 });
  await pass(1000);
  scheduler.touch(thing('a'));
  scheduler.touch(thing('b'));
  await pass(10_000);
  expect(runs()).toBe(0);
  scheduler.touch(thing('c'));
  await pass(5);
  expect(runs()).toBe(1);
});

test('with a threshold so many removals wait for no rest', async () => {
  const { scheduler, runs } = started({ deletionThreshold: 2, scheduleDelayMs: 20 });
  await pass(110);
  expect(runs()).toBe(1);
  scheduler.freed();
  await pass(30);
  expect(runs()).toBe(1);
  scheduler.freed();
  await pass(30);
  expect(runs()).toBe(2);
});

test('who waits gets a run that began after the call, and shares it', async () => {
  const { scheduler, runs, things } = started({ startupDelayMs: 0 });
  things.roots.set('gone', { until: 0n });
  const first = scheduler.collect();
  await vi.advanceTimersByTimeAsync(0);
  const others = [scheduler.collect(), scheduler.collect()];
  await pass(50);
  await Promise.all([first, ...others]);
  expect(runs()).toBe(2);
  expect(things.roots.size).toBe(0);
});

test('a run that is asked for waits for no schedule, and tells what it came to', async () => {
  const { scheduler, runs, things } = started({ startupDelayMs: 0, scheduleDelayMs: 86_400_000 });
  things.roots.set('gone', { until: 0n });
  const waiting = scheduler.collect();
  await pass(1000);
  expect(runs()).toBe(0);
  const asked = scheduler.collect(true);
  await pass(5);
  expect(await asked).toMatchObject({ removed: [thing('gone')] });
  expect(await waiting).toBe(await asked);
});

test('what expires is collected then, by one timer', async () => {
  const { scheduler, things } = started({ startupDelayMs: 0 });
  for (const [key, ms] of [
    ['late', 60 * 86_400_000],
    ['soon', 2000],
    ['next', 5000],
  ] as const) {
    things.roots.set(key, { until: BigInt(Date.now() + ms) * 1_000_000n });
    scheduler.touch(thing(key));
  }
  expect(vi.getTimerCount()).toBe(1);
  await pass(1999);
  expect(things.roots.size).toBe(3);
  await pass(50);
  expect([...things.roots.keys()]).toEqual(['late', 'next']);
  expect(vi.getTimerCount()).toBe(1);
  await pass(5000);
  expect([...things.roots.keys()]).toEqual(['late']);
  // Farther away than a timer reaches.
  await pass(59 * 86_400_000);
  expect([...things.roots.keys()]).toEqual(['late']);
  await pass(86_400_000);
  expect(things.roots.size).toBe(0);
  expect(vi.getTimerCount()).toBe(0);
});
