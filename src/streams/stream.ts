import type { RequestContext } from '../base/context.ts';
import type { Any } from '../events/event.ts';

/** Messages both ways, between a client and whoever serves a request in which it names the stream. */
export interface Stream {
  /** Resolves when there is room for more. @throws OpError Canceled: the client is gone, or it was closed */
  send(message: Any): Promise<void>;
  /** @returns undefined when the client sends no more. @throws OpError Canceled, as send */
  receive(): Promise<Any | undefined>;
  /** The client gets what was sent, and the end. Once more is nothing. */
  close(): void;
}

/**
 * Streams by the namespace of their request, which may be none, and a name that the client chose. One that
 * came under a lease ends when that has gone.
 */
export interface StreamRegistry {
  /** Until it is disposed, others find the stream. @throws OpError AlreadyExists; InvalidArgument no name */
  register(ctx: RequestContext, name: string, stream: Stream): Disposable;
  /** @throws OpError NotFound */
  get(ctx: RequestContext, name: string): Stream;
}
