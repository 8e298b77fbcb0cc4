import type { RequestContext } from '../../base/context.ts';
import { parseDigest } from '../../base/digest.ts';
import type { ContentStore } from '../../content/content.ts';
import { infoFromWire, infoToWire, statusToWire } from '../convert/content.ts';
import { containerd, google } from '../gen/wire.js';
import { MESSAGE_BYTES_MAX } from '../limits.ts';
import { bidi, serverStream, unary } from '../service.ts';
import type { Service } from '../service.ts';
import { packed } from './packing.ts';
import { readResponse } from './read-response.ts';
import { write } from './write.ts';

const v1 = containerd.services.content.v1;
const { Empty } = google.protobuf;

/** A store may give large pieces; no message is larger than this. */
const CHUNK_BYTES_MAX = MESSAGE_BYTES_MAX / 4;

export function contentService(store: ContentStore): Service {
  return {
    name: 'containerd.services.content.v1.Content',
    methods: {
      Info: unary(v1.InfoRequest, v1.InfoResponse, async (ctx, { digest }) => ({
        info: infoToWire(await store.info(ctx, parseDigest(digest))),
      })),
      Update: unary(v1.UpdateRequest, v1.UpdateResponse, async (ctx, { info, updateMask }) => ({
        info: infoToWire(await store.update(ctx, infoFromWire(info), updateMask?.paths ?? [])),
      })),
      List: serverStream(v1.ListContentRequest, v1.ListContentResponse, (ctx, { filters }) =>
        packed(store.walk(ctx, filters), (infos) => ({ info: infos.map(infoToWire) })),
      ),
      Delete: unary(v1.DeleteContentRequest, Empty, async (ctx, { digest }) => {
        await store.delete(ctx, parseDigest(digest));
        return {};
      }),
      Read: serverStream(v1.ReadContentRequest, readResponse, (ctx, request) =>
        read(store, ctx, request),
      ),
      Status: unary(v1.StatusRequest, v1.StatusResponse, async (ctx, { ref }) => ({
        status: statusToWire(await store.status(ctx, ref)),
      })),
      ListStatuses: unary(
        v1.ListStatusesRequest,
        v1.ListStatusesResponse,
        async (ctx, { filters }) => ({
          statuses: (await store.statuses(ctx, filters)).map(statusToWire),
        }),
      ),
      Write: bidi(v1.WriteContentRequest, v1.WriteContentResponse, (ctx, requests) =>
        write(store, ctx, requests),
      ),
      Abort: unary(v1.AbortRequest, Empty, async (ctx, { ref }) => {
        await store.abort(ctx, ref);
        return {};
      }),
    },
  };
}

/** `offset` of the answers counts from the start of this read, as containerd's does. */
async function* read(
  store: ContentStore,
  ctx: RequestContext,
  request: { readonly digest: string; readonly offset: number; readonly size: number },
): AsyncIterable<{ offset: number; data: Uint8Array }> {
  const digest = parseDigest(request.digest);
  let offset = 0;
  for await (const piece of store.read(
    ctx,
    digest,
    Math.max(request.offset, 0),
    Math.max(request.size, 0),
  )) {
    for (let start = 0; start < piece.length; start += CHUNK_BYTES_MAX) {
      const data = piece.subarray(start, start + CHUNK_BYTES_MAX);
      yield { offset, data };
      offset += data.length;
    }
  }
}
