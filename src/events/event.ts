import type { RequestContext } from '../base/context.ts';
import type { Labels } from '../base/labels.ts';

/** A message of a type that its sender chose: bytes that we keep and never read. */
export interface Any {
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

/** What the daemon itself tells; the types have containerd's names. */
export type OwnEvent =
  | { readonly type: 'NamespaceCreate'; readonly name: string; readonly labels: Labels }
  | { readonly type: 'NamespaceUpdate'; readonly name: string; readonly labels: Labels }
  | { readonly type: 'NamespaceDelete'; readonly name: string }
  | { readonly type: 'ImageCreate'; readonly name: string; readonly labels: Labels }
  | { readonly type: 'ImageUpdate'; readonly name: string; readonly labels: Labels }
  | { readonly type: 'ImageDelete'; readonly name: string }
  | { readonly type: 'ContentCreate'; readonly digest: string; readonly size: number }
  | { readonly type: 'ContentDelete'; readonly digest: string }
  | {
      readonly type: 'SnapshotPrepare';
      readonly key: string;
      readonly parent: string;
      readonly snapshotter: string;
    }
  | {
      readonly type: 'SnapshotCommit';
      readonly key: string;
      readonly name: string;
      readonly snapshotter: string;
    }
  | { readonly type: 'SnapshotRemove'; readonly key: string; readonly snapshotter: string }
  | {
      readonly type: 'ContainerCreate';
      readonly id: string;
      readonly image: string;
      readonly runtime: { readonly name: string; readonly options: Any | undefined };
    }
  | {
      readonly type: 'ContainerUpdate';
      readonly id: string;
      readonly image: string;
      readonly labels: Labels;
      readonly snapshotKey: string;
    }
  | { readonly type: 'ContainerDelete'; readonly id: string };

/** containerd's topics. Leases have none there. */
export const TOPICS = {
  NamespaceCreate: '/namespaces/create',
  NamespaceUpdate: '/namespaces/update',
  NamespaceDelete: '/namespaces/delete',
  ImageCreate: '/images/create',
  ImageUpdate: '/images/update',
  ImageDelete: '/images/delete',
  ContentCreate: '/content/create',
  ContentDelete: '/content/delete',
  SnapshotPrepare: '/snapshot/prepare',
  SnapshotCommit: '/snapshot/commit',
  SnapshotRemove: '/snapshot/remove',
  ContainerCreate: '/containers/create',
  ContainerUpdate: '/containers/update',
  ContainerDelete: '/containers/delete',
} as const satisfies Record<OwnEvent['type'], string>;

export interface Envelope {
  /** Nanoseconds since the epoch. */
  readonly timestamp: bigint;
  readonly namespace: string;
  readonly topic: string;
  /** Of a client's own event its bytes. */
  readonly event: OwnEvent | Any;
}

/** For stores: what is told here has happened, and is on disk. */
export interface EventPublisher {
  publish(namespace: string, event: OwnEvent): void;
}

/** Hands events to those who listen now. Nothing is kept. */
export interface EventExchange extends EventPublisher {
  /**
   * A client's event, in the namespace of its request.
   * @throws FailedPrecondition no namespace; InvalidArgument for it or the topic
   */
  send(ctx: RequestContext, topic: string, event: Any): Promise<void>;
  /** A client's event, as it is. @throws InvalidArgument for a namespace, a topic or no time */
  forward(envelope: Envelope): Promise<void>;
  /**
   * What happens from now on, in all namespaces, until the request's signal aborts.
   * @throws InvalidArgument for a filter; ResourceExhausted when it was read too slowly
   */
  subscribe(ctx: RequestContext, filters: readonly string[]): AsyncIterable<Envelope>;
}
