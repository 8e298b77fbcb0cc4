import type { RequestContext } from '../../base/context.ts';
import type { Digest } from '../../base/digest.ts';
import type { Labels } from '../../base/labels.ts';
import type { Announced, ContentStore, Info, Status, Writer } from '../../content/content.ts';
import { infoFromWire, statusFromWire } from '../convert/content.ts';
import { labelsToWire } from '../convert/labels.ts';
import { containerd, google } from '../gen/wire.js';
import type { Calls, Decoder, Encoder, Rpc } from './calls.ts';
import { WriterProxy } from './writer.ts';

const v1 = containerd.services.content.v1;
const { Empty } = google.protobuf;

function rpc<Request, Response>(
  method: string,
  request: Encoder<Request>,
  response: Decoder<Response>,
): Rpc<Request, Response> {
  return { path: `/containerd.services.content.v1.Content/${method}`, request, response };
}

const RPC = {
  info: rpc('Info', v1.InfoRequest, v1.InfoResponse),
  update: rpc('Update', v1.UpdateRequest, v1.UpdateResponse),
  list: rpc('List', v1.ListContentRequest, v1.ListContentResponse),
  delete: rpc('Delete', v1.DeleteContentRequest, Empty),
  read: rpc('Read', v1.ReadContentRequest, v1.ReadContentResponse),
  status: rpc('Status', v1.StatusRequest, v1.StatusResponse),
  listStatuses: rpc('ListStatuses', v1.ListStatusesRequest, v1.ListStatusesResponse),
  write: rpc('Write', v1.WriteContentRequest, v1.WriteContentResponse),
  abort: rpc('Abort', v1.AbortRequest, Empty),
};

/** The content store of a daemon. The connection belongs to who made it. */
export class ContentProxy implements ContentStore {
  readonly #calls: Calls;

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  async info(ctx: RequestContext, digest: Digest): Promise<Info> {
    return infoFromWire((await this.#calls.unary(ctx, RPC.info, { digest })).info);
  }

  async update(
    ctx: RequestContext,
    change: { readonly digest: Digest; readonly labels: Labels },
    fieldPaths: readonly string[],
  ): Promise<Info> {
    const request = {
      info: { digest: change.digest, labels: labelsToWire(change.labels) },
      updateMask: fieldPaths.length === 0 ? null : { paths: [...fieldPaths] },
    };
    return infoFromWire((await this.#calls.unary(ctx, RPC.update, request)).info);
  }

  async *walk(ctx: RequestContext, filters: readonly string[]): AsyncIterable<Info> {
    const request = { filters: [...filters] };
    for await (const { info } of this.#calls.serverStream(ctx, RPC.list, request)) {
      for (const each of info) yield infoFromWire(each);
    }
  }

  async delete(ctx: RequestContext, digest: Digest): Promise<void> {
    await this.#calls.unary(ctx, RPC.delete, { digest });
  }

  async *read(
    ctx: RequestContext,
    digest: Digest,
    offset: number,
    size: number,
  ): AsyncIterable<Uint8Array> {
    const request = { digest, offset, size };
    for await (const { data } of this.#calls.serverStream(ctx, RPC.read, request)) yield data;
  }

  async status(ctx: RequestContext, ref: string): Promise<Status> {
    return statusFromWire((await this.#calls.unary(ctx, RPC.status, { ref })).status);
  }

  async statuses(ctx: RequestContext, filters: readonly string[]): Promise<readonly Status[]> {
    const request = { filters: [...filters] };
    return (await this.#calls.unary(ctx, RPC.listStatuses, request)).statuses.map(statusFromWire);
  }

  async abort(ctx: RequestContext, ref: string): Promise<void> {
    await this.#calls.unary(ctx, RPC.abort, { ref });
  }

  writer(ctx: RequestContext, ref: string, announced: Announced): Promise<Writer> {
    return WriterProxy.open(this.#calls.bidi(ctx, RPC.write), ref, announced);
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
