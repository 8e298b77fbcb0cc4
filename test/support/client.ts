import { background } from '../../src/base/context.ts';
import type { ContentStore } from '../../src/content/content.ts';
import type { Applier, Comparer } from '../../src/diff/diff.ts';
import { connect as connectTo } from '../../src/grpc/proxy/connect.ts';
import type { Snapshotter } from '../../src/snapshotters/snapshotter.ts';

/** A daemon as its clients see it. */
export interface Client extends AsyncDisposable {
  readonly content: ContentStore;
  readonly applier: Applier;
  readonly comparer: Comparer;
  readonly snapshotter: Snapshotter;
  serving(): Promise<boolean>;
}

export function connect(socket: string, snapshotter: string): Client {
  const connection = connectTo(socket);
  return {
    content: connection.content,
    applier: connection.applier,
    comparer: connection.comparer,
    snapshotter: connection.snapshots(snapshotter),
    serving: () => connection.serving(background),
    [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
  };
}
