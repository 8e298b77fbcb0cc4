import type { RequestContext } from '../../base/context.ts';
import { OpError, quote } from '../../base/errors.ts';
import { grpc } from '../gen/wire.js';
import { serverStream, unary } from '../service.ts';
import type { Service } from '../service.ts';

const v1 = grpc.health.v1;
const { ServingStatus } = v1.HealthCheckResponse;

export type Serving = 'serving' | 'notServing';

/** What health checks see. '' is the daemon as a whole; other names are those of services. */
export class Health {
  readonly #services = new Map<string, Serving>();
  readonly #watchers = new Set<() => void>();
  #changes = 0;

  constructor(services: readonly string[]) {
    for (const service of ['', ...services]) this.#services.set(service, 'serving');
  }

  get services(): ReadonlyMap<string, Serving> {
    return this.#services;
  }

  /** Sets the state of every service, and tells those who watch. */
  set(serving: Serving): void {
    for (const service of this.#services.keys()) this.#services.set(service, serving);
    this.#changes++;
    for (const wake of this.#watchers) wake();
  }

  /** How often the state was set. */
  get changes(): number {
    return this.#changes;
  }

  /** Resolves once the state was set more than `seen` times, or the signal aborts. */
  async changed(seen: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted || this.#changes !== seen) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = (): void => resolve();
    this.#watchers.add(wake);
    signal.addEventListener('abort', wake, { once: true });
    await promise;
    this.#watchers.delete(wake);
    signal.removeEventListener('abort', wake);
  }
}

export function healthService(health: Health): Service {
  return {
    name: 'grpc.health.v1.Health',
    methods: {
      Check: unary(v1.HealthCheckRequest, v1.HealthCheckResponse, async (_ctx, { service }) => {
        const serving = health.services.get(service);
        if (serving === undefined) {
          throw new OpError('NotFound', `health: there is no service ${quote(service)}`);
        }
        return { status: statusOf(serving) };
      }),
      List: unary(v1.HealthListRequest, v1.HealthListResponse, async () => ({
        statuses: Object.fromEntries(
          [...health.services].map(([name, serving]) => [name, { status: statusOf(serving) }]),
        ),
      })),
      Watch: serverStream(v1.HealthCheckRequest, v1.HealthCheckResponse, (ctx, { service }) =>
        watch(health, ctx, service),
      ),
    },
  };
}

/** The state now, and after each change, as long as the client stays. */
async function* watch(
  health: Health,
  { signal }: RequestContext,
  service: string,
): AsyncIterable<{ status: number }> {
  let last: Serving | 'unknown' | undefined;
  while (!signal.aborted) {
    const seen = health.changes;
    const now = health.services.get(service) ?? 'unknown';
    if (now !== last)
      yield { status: now === 'unknown' ? ServingStatus.SERVICE_UNKNOWN : statusOf(now) };
    last = now;
    await health.changed(seen, signal);
  }
}

const statusOf = (serving: Serving): number =>
  serving === 'serving' ? ServingStatus.SERVING : ServingStatus.NOT_SERVING;
