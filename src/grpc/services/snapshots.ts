import { OpError } from '../../base/errors.ts';
import type { Snapshotter } from '../../snapshotters/snapshotter.ts';
import { labelsFromWire } from '../convert/labels.ts';
import { infoToWire, mountsToWire } from '../convert/snapshots.ts';
import { containerd, google } from '../gen/wire.js';
import { serverStream, unary } from '../service.ts';
import type { Service } from '../service.ts';
import { packed } from './packing.ts';

const v1 = containerd.services.snapshots.v1;
const { Empty } = google.protobuf;

/**
 * @param snapshotter by the name that a request carries
 * @throws OpError InvalidArgument (`snapshotter`) for a name that is not configured
 */
export function snapshotsService(snapshotter: (name: string) => Snapshotter): Service {
  return {
    name: 'containerd.services.snapshots.v1.Snapshots',
    methods: {
      Prepare: unary(
        v1.PrepareSnapshotRequest,
        v1.PrepareSnapshotResponse,
        async (ctx, { snapshotter: name, key, parent, labels }) => ({
          mounts: mountsToWire(
            await snapshotter(name).prepare(ctx, key, parent, labelsFromWire(labels)),
          ),
        }),
      ),
      View: unary(
        v1.ViewSnapshotRequest,
        v1.ViewSnapshotResponse,
        async (ctx, { snapshotter: name, key, parent, labels }) => ({
          mounts: mountsToWire(
            await snapshotter(name).view(ctx, key, parent, labelsFromWire(labels)),
          ),
        }),
      ),
      Mounts: unary(v1.MountsRequest, v1.MountsResponse, async (ctx, request) => ({
        mounts: mountsToWire(await snapshotter(request.snapshotter).mounts(ctx, request.key)),
      })),
      Commit: unary(
        v1.CommitSnapshotRequest,
        Empty,
        async (ctx, { snapshotter: of, name, key, labels, parent }) => {
          await snapshotter(of).commit(ctx, name, key, labelsFromWire(labels), parent);
          return {};
        },
      ),
      Remove: unary(v1.RemoveSnapshotRequest, Empty, async (ctx, request) => {
        await snapshotter(request.snapshotter).remove(ctx, request.key);
        return {};
      }),
      Stat: unary(v1.StatSnapshotRequest, v1.StatSnapshotResponse, async (ctx, request) => ({
        info: infoToWire(await snapshotter(request.snapshotter).stat(ctx, request.key)),
      })),
      Update: unary(
        v1.UpdateSnapshotRequest,
        v1.UpdateSnapshotResponse,
        async (ctx, { snapshotter: of, info, updateMask }) => {
          if (!info) throw new OpError('InvalidArgument', 'update: the request has no info');
          const change = { name: info.name ?? '', labels: labelsFromWire(info.labels ?? {}) };
          const updated = await snapshotter(of).update(ctx, change, updateMask?.paths ?? []);
          return { info: infoToWire(updated) };
        },
      ),
      List: serverStream(v1.ListSnapshotsRequest, v1.ListSnapshotsResponse, (ctx, request) =>
        packed(snapshotter(request.snapshotter).walk(ctx, request.filters), (infos) => ({
          info: infos.map(infoToWire),
        })),
      ),
      Usage: unary(v1.UsageRequest, v1.UsageResponse, async (ctx, request) => {
        const { size, inodes } = await snapshotter(request.snapshotter).usage(ctx, request.key);
        return { size, inodes };
      }),
      Cleanup: unary(v1.CleanupRequest, Empty, async (ctx, request) => {
        await snapshotter(request.snapshotter).cleanup(ctx);
        return {};
      }),
    },
  };
}
