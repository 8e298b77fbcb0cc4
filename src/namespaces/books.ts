import type { Clock } from '../base/clock.ts';
import type { EventPublisher } from '../events/event.ts';
import type { GcNotes } from '../gc/collectible.ts';
import type { LeaseBook } from '../leases/lease.ts';
import type { MetadataStore } from '../metadata/metadata.ts';
import type { NamespaceBook } from './namespace.ts';

/** What the stores of a standalone socket keep together; each takes what it needs. */
export interface Books {
  readonly metadata: MetadataStore;
  readonly namespaces: NamespaceBook;
  readonly leases: LeaseBook;
  readonly gc: GcNotes;
  readonly events: EventPublisher;
  readonly clock: Clock;
}
