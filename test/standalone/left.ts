import type { Daemon } from '../support/daemon.ts';
import { callsOf, inside, RPC } from './client.ts';

const ctx = inside('test');

/** What is in the namespace `test`. */
interface Left {
  readonly images: readonly string[];
  readonly leases: number;
  readonly blobs: number;
  readonly ingests: number;
  readonly snapshots: number;
}

export const NOTHING: Left = { images: [], leases: 0, blobs: 0, ingests: 0, snapshots: 0 };

/** After a collection. */
export async function leftOf(daemon: Daemon): Promise<Left> {
  using calls = callsOf(daemon);
  await calls.unary(ctx, RPC.createLease, { id: 'to collect' });
  await calls.unary(ctx, RPC.deleteLease, { id: 'to collect', sync: true });
  const { content, snapshotter } = daemon.client;
  const { images } = await calls.unary(ctx, RPC.listImages, {});
  const { leases } = await calls.unary(ctx, RPC.listLeases, {});
  return {
    images: images.map(({ name }) => name ?? ''),
    leases: leases.length,
    blobs: (await Array.fromAsync(content.walk(ctx, []))).length,
    ingests: (await content.statuses(ctx, [])).length,
    snapshots: (await Array.fromAsync(snapshotter.walk(ctx, []))).length,
  };
}
