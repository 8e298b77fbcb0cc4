import type { Clock } from '../base/clock.ts';
import type { RequestContext } from '../base/context.ts';
import { OpError, quote } from '../base/errors.ts';
import { adaptEnvelope, compileFilters, type Adaptor } from '../base/filters.ts';
import { checkIdentifier, requireNamespace } from '../base/identifiers.ts';
import { TOPICS, type Any, type Envelope, type EventExchange, type OwnEvent } from './event.ts';

/** Events that wait for a slow listener; an import of a large image makes some hundred. */
const WAITING_MAX = 10_000;

/**
 * The fields of a client's event, by their names in camel case, labels as a Map; undefined for a type that
 * nobody here knows, or bytes that are none of it.
 */
export type DecodeEvent = (event: Any) => object | undefined;

/** In memory: a listener that comes back has missed what happened meanwhile, as with containerd. */
export class LocalEventExchange implements EventExchange {
  readonly #clock: Clock;
  readonly #decode: DecodeEvent;
  readonly #listeners = new Set<Listener>();

  constructor(clock: Clock, decode: DecodeEvent) {
    this.#clock = clock;
    this.#decode = decode;
  }

  publish(namespace: string, event: OwnEvent): void {
    if (this.#listeners.size === 0) return;
    this.#tell({ timestamp: this.#clock.now(), namespace, topic: TOPICS[event.type], event });
  }

  async send(ctx: RequestContext, topic: string, event: Any): Promise<void> {
    const namespace = requireNamespace(ctx);
    checkTopic(topic);
    this.#tell({ timestamp: this.#clock.now(), namespace, topic, event });
  }

  async forward(envelope: Envelope): Promise<void> {
    checkIdentifier('event: namespace', envelope.namespace);
    checkTopic(envelope.topic);
    if (envelope.timestamp === 0n) {
      throw new OpError('InvalidArgument', 'event: it has no timestamp');
    }
    this.#tell(envelope);
  }

  async *subscribe(
    { signal }: RequestContext,
    filters: readonly string[],
  ): AsyncIterable<Envelope> {
    // Listens before anything is awaited, so that nothing is missed from the call on.
    const listener = new Listener();
    const wake = (): void => listener.wake();
    this.#listeners.add(listener);
    signal.addEventListener('abort', wake, { once: true });
    try {
      const matches = await compileFilters(filters);
      while (!signal.aborted) {
        for (const envelope of listener.take()) {
          const { event } = envelope;
          if (matches(adaptEnvelope(envelope, fieldsOf(event, this.#decode)))) yield envelope;
        }
        await listener.someWait(signal);
      }
    } finally {
      this.#listeners.delete(listener);
      signal.removeEventListener('abort', wake);
    }
  }

  #tell(envelope: Envelope): void {
    for (const listener of this.#listeners) listener.push(envelope);
  }
}

class Listener {
  #waiting: Envelope[] = [];
  #tooSlow = false;
  #wake: (() => void) | undefined;

  push(envelope: Envelope): void {
    if (this.#waiting.length < WAITING_MAX) this.#waiting.push(envelope);
    else this.#tooSlow = true;
    this.wake();
  }

  wake(): void {
    this.#wake?.();
    this.#wake = undefined;
  }

  /** @throws OpError ResourceExhausted when some had to be dropped */
  take(): readonly Envelope[] {
    if (this.#tooSlow) {
      throw new OpError(
        'ResourceExhausted',
        `events: ${WAITING_MAX} of them wait to be read: read faster, or filter more`,
      );
    }
    const taken = this.#waiting;
    this.#waiting = [];
    return taken;
  }

  /** Resolves at once when some wait already or the listener is gone, else when it is woken. */
  async someWait(signal: AbortSignal): Promise<void> {
    if (this.#waiting.length > 0 || signal.aborted) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }
}

/** The fields of an event: a client's are decoded when a filter asks for one. */
function fieldsOf(event: OwnEvent | Any, decode: DecodeEvent): Adaptor {
  let fields: unknown;
  return (fieldpath) => {
    if (!('type' in event)) return valueAt((fields ??= decode(event)), fieldpath);
    return fieldpath[0] === 'type' ? undefined : valueAt(event, fieldpath);
  };
}

/** Texts that are not empty, and booleans that were sent, as in containerd. Labels may have dots in their names. */
function valueAt(value: unknown, path: readonly string[]): string | undefined {
  const [field, ...rest] = path;
  if (field === undefined) {
    const isText = typeof value === 'string' && value !== '';
    return isText || typeof value === 'boolean' ? String(value) : undefined;
  }
  if (value instanceof Map) return valueAt(value.get(path.join('.')), []);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const name = field.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  const found: unknown = Object.getOwnPropertyDescriptor(value, name)?.value;
  return valueAt(found, rest);
}

/** @throws OpError InvalidArgument */
function checkTopic(topic: string): void {
  if (!topic.startsWith('/') || topic === '/') {
    throw new OpError(
      'InvalidArgument',
      `topic ${quote(topic)} must begin with "/" and have a part behind it`,
    );
  }
  for (const part of topic.slice(1).split('/'))
    checkIdentifier(`topic ${quote(topic)}: part`, part);
}
