import type { RequestContext } from '../../base/context.ts';
import type { Labels } from '../../base/labels.ts';
import type { Info, Mount, Snapshotter, Usage } from '../../snapshotters/snapshotter.ts';
import { labelsToWire } from '../convert/labels.ts';
import { infoFromWire, mountsFromWire } from '../convert/snapshots.ts';
import { containerd, google } from '../gen/wire.js';
import type { Calls, Decoder, Encoder, Rpc } from './calls.ts';

const v1 = containerd.services.snapshots.v1;
const { Empty } = google.protobuf;

function rpc<Request, Response>(
  method: string,
  request: Encoder<Request>,
  response: Decoder<Response>,
): Rpc<Request, Response> {
  return { path: `/containerd.services.snapshots.v1.Snapshots/${method}`, request, response };
}

const RPC = {
  prepare: rpc('Prepare', v1.PrepareSnapshotRequest, v1.PrepareSnapshotResponse),
  view: rpc('View', v1.ViewSnapshotRequest, v1.ViewSnapshotResponse),
  mounts: rpc('Mounts', v1.MountsRequest, v1.MountsResponse),
  commit: rpc('Commit', v1.CommitSnapshotRequest, Empty),
  remove: rpc('Remove', v1.RemoveSnapshotRequest, Empty),
  stat: rpc('Stat', v1.StatSnapshotRequest, v1.StatSnapshotResponse),
  update: rpc('Update', v1.UpdateSnapshotRequest, v1.UpdateSnapshotResponse),
  list: rpc('List', v1.ListSnapshotsRequest, v1.ListSnapshotsResponse),
  usage: rpc('Usage', v1.UsageRequest, v1.UsageResponse),
  cleanup: rpc('Cleanup', v1.CleanupRequest, Empty),
};

/** A snapshotter of a daemon; `name` is that of its config. The connection belongs to who made it. */
export class SnapshotterProxy implements Snapshotter {
  readonly #calls: Calls;
  readonly #name: string;

  constructor(calls: Calls, name: string) {
    this.#calls = calls;
    this.#name = name;
  }

  async stat(ctx: RequestContext, key: string): Promise<Info> {
    const request = { snapshotter: this.#name, key };
    return infoFromWire((await this.#calls.unary(ctx, RPC.stat, request)).info);
  }

  async update(
    ctx: RequestContext,
    change: { readonly name: string; readonly labels: Labels },
    fieldPaths: readonly string[],
  ): Promise<Info> {
    const request = {
      snapshotter: this.#name,
      info: { name: change.name, labels: labelsToWire(change.labels) },
      updateMask: fieldPaths.length === 0 ? null : { paths: [...fieldPaths] },
    };
    return infoFromWire((await this.#calls.unary(ctx, RPC.update, request)).info);
  }

  async usage(ctx: RequestContext, key: string): Promise<Usage> {
    const { size, inodes } = await this.#calls.unary(ctx, RPC.usage, {
      snapshotter: this.#name,
      key,
    });
    return { size, inodes };
  }

  async mounts(ctx: RequestContext, key: string): Promise<readonly Mount[]> {
    const request = { snapshotter: this.#name, key };
    return mountsFromWire((await this.#calls.unary(ctx, RPC.mounts, request)).mounts);
  }

  async prepare(
    ctx: RequestContext,
    key: string,
    parent: string,
    labels: Labels,
  ): Promise<readonly Mount[]> {
    const request = { snapshotter: this.#name, key, parent, labels: labelsToWire(labels) };
    return mountsFromWire((await this.#calls.unary(ctx, RPC.prepare, request)).mounts);
  }

  async view(
    ctx: RequestContext,
    key: string,
    parent: string,
    labels: Labels,
  ): Promise<readonly Mount[]> {
    const request = { snapshotter: this.#name, key, parent, labels: labelsToWire(labels) };
    return mountsFromWire((await this.#calls.unary(ctx, RPC.view, request)).mounts);
  }

  async commit(
    ctx: RequestContext,
    name: string,
    key: string,
    labels: Labels,
    parent: string,
  ): Promise<void> {
    await this.#calls.unary(ctx, RPC.commit, {
      snapshotter: this.#name,
      name,
      key,
      labels: labelsToWire(labels),
      parent,
    });
  }

  async remove(ctx: RequestContext, key: string): Promise<void> {
    await this.#calls.unary(ctx, RPC.remove, { snapshotter: this.#name, key });
  }

  async *walk(ctx: RequestContext, filters: readonly string[]): AsyncIterable<Info> {
    const request = { snapshotter: this.#name, filters: [...filters] };
    for await (const { info } of this.#calls.serverStream(ctx, RPC.list, request)) {
      for (const each of info) yield infoFromWire(each);
    }
  }

  async cleanup(ctx: RequestContext): Promise<void> {
    await this.#calls.unary(ctx, RPC.cleanup, { snapshotter: this.#name });
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
