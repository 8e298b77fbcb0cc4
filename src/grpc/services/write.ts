import type { RequestContext } from '../../base/context.ts';
import { OpError } from '../../base/errors.ts';
import type { ContentStore, Writer } from '../../content/content.ts';
import { announcedFromWire, checkAction, WriteAction } from '../convert/content.ts';
import { labelsFromWire } from '../convert/labels.ts';
import { timestampToWire } from '../convert/timestamps.ts';
import type { containerd } from '../gen/wire.js';

type Request = Pick<
  containerd.services.content.v1.WriteContentRequest,
  'action' | 'ref' | 'total' | 'expected' | 'offset' | 'data' | 'labels'
>;
type Response = containerd.services.content.v1.WriteContentResponse.$Properties;

/**
 * One Content.Write stream: one response per request, until COMMIT or the end of the requests. The ref
 * is free before the client sees the answer to its COMMIT, or the status.
 */
export async function* write(
  store: ContentStore,
  ctx: RequestContext,
  requests: AsyncIterable<Request>,
): AsyncIterable<Response> {
  let writer: Writer | undefined;
  try {
    for await (const request of requests) {
      checkAction(request.action);
      const announced = announcedFromWire(request);
      if (writer === undefined) {
        if (request.ref === '') {
          throw new OpError('InvalidArgument', 'the first message of a write needs a ref');
        }
        writer = await store.writer(ctx, request.ref, announced ?? {});
      } else if (announced !== undefined) {
        await writer.announce(announced);
      }
      const response = await answer(writer, request);
      if (request.action === WriteAction.COMMIT) {
        await writer[Symbol.asyncDispose]();
        yield response;
        return;
      }
      yield response;
    }
  } finally {
    await writer?.[Symbol.asyncDispose]();
  }
}

async function answer(writer: Writer, request: Request): Promise<Response> {
  const { action } = request;
  if (action === WriteAction.STAT) {
    const { startedAt, updatedAt, offset, total, digest } = writer.status();
    return {
      action,
      startedAt: timestampToWire(startedAt),
      updatedAt: timestampToWire(updatedAt),
      offset,
      total,
      digest,
    };
  }
  if (!Number.isSafeInteger(request.offset) || request.offset < 0) {
    throw new OpError('OutOfRange', `ingest: nothing can be written at offset ${request.offset}`);
  }
  await writer.write(request.offset, request.data);
  const { offset, digest } = writer.status();
  if (action !== WriteAction.COMMIT) return { action, offset, digest };
  return { action, offset, digest: await writer.commit(labelsFromWire(request.labels)) };
}
