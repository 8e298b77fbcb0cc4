import type { RequestContext } from '../../base/context.ts';
import { isOpError, messageOf, OpError } from '../../base/errors.ts';
import type { Stream, StreamRegistry } from '../../streams/stream.ts';
import type {
  ExportOptions,
  ImageDestination,
  Report,
  Transfers,
} from '../../transfer/transfer.ts';
import { destinationFromWire, exportOptionsFromWire, progressToWire } from '../convert/transfer.ts';
import { containerd, google } from '../gen/wire.js';
import { unary } from '../service.ts';
import type { Service } from '../service.ts';
import { ByteSender, receiveBytes } from '../streams/byte-stream.ts';

const v1 = containerd.services.transfer.v1;
const types = containerd.types.transfer;
const PACKAGE = 'containerd.types.transfer.';

type WireAny = google.protobuf.Any.$Properties;

/** What a transfer goes from or to. */
type End =
  | { readonly kind: 'images'; readonly images: ImageDestination }
  | {
      readonly kind: 'import';
      readonly stream: Stream;
      readonly mediaType: string;
      readonly compressLayers: boolean;
    }
  | { readonly kind: 'export'; readonly stream: Stream; readonly options: ExportOptions }
  | { readonly kind: 'other' };

export function transferService(transfers: Transfers, streams: StreamRegistry): Service {
  return {
    name: 'containerd.services.transfer.v1.Transfer',
    methods: {
      Transfer: unary(v1.TransferRequest, google.protobuf.Empty, async (ctx, request) => {
        using owned = new DisposableStack();
        const open = (name: string): Stream => {
          const stream = streams.get(ctx, name);
          // Whatever comes: a client that waits for its end is told.
          owned.defer(() => stream.close());
          return stream;
        };
        const progress = request.options?.progressStream ?? '';
        const report = progress === '' ? tellNobody : reporterTo(open(progress));
        const [source, destination] = [request.source ?? {}, request.destination ?? {}];
        const [from, to] = [endOf(source, open), endOf(destination, open)];
        const work = transfer(transfers, ctx, from, to, report);
        if (work === undefined) {
          throw new OpError(
            'Unimplemented',
            `method Transfer not implemented for ${source.type_url ?? ''} to ${destination.type_url ?? ''}`,
          );
        }
        await stoppable(ctx, owned, work);
        return {};
      }),
    },
  };
}

/** @returns undefined for a pair that nobody knows to serve */
function transfer(
  transfers: Transfers,
  ctx: RequestContext,
  from: End,
  to: End,
  report: Report,
): Promise<void> | undefined {
  if (from.kind === 'import' && to.kind === 'images') {
    const { stream, mediaType, compressLayers } = from;
    const archive = {
      bytes: receiveBytes(stream),
      mayBeCompressed: mediaType === '',
      compressLayers,
    };
    return transfers.import(ctx, archive, to.images, report);
  }
  if (from.kind === 'import' && to.kind === 'export') {
    return sendTo(to.stream, async (write) => {
      for await (const bytes of receiveBytes(from.stream)) await write(bytes);
    });
  }
  if (from.kind === 'images' && to.kind === 'export') {
    return sendTo(to.stream, (write) =>
      transfers.export(ctx, from.images, to.options, write, report),
    );
  }
  if (from.kind === 'images' && to.kind === 'images') {
    return transfers.tag(ctx, from.images.name, to.images);
  }
  return undefined;
}

async function sendTo(
  stream: Stream,
  produce: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  const sender = new ByteSender(stream);
  await produce((bytes) => sender.write(bytes));
  await sender.finish();
}

/** A request that its client gives up while its streams stay waits for nothing more from them. */
async function stoppable(
  { signal }: RequestContext,
  owned: DisposableStack,
  work: Promise<void>,
): Promise<void> {
  const stop = (): void => owned.dispose();
  signal.addEventListener('abort', stop);
  try {
    if (signal.aborted) stop();
    await work;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** @throws OpError NotFound: the stream; InvalidArgument */
function endOf({ type_url: type, value }: WireAny, open: (name: string) => Stream): End {
  const bytes = value ?? new Uint8Array(0);
  try {
    switch (type) {
      case `${PACKAGE}ImageStore`:
        return { kind: 'images', images: destinationFromWire(types.ImageStore.decode(bytes)) };
      case `${PACKAGE}ImageImportStream`: {
        const { stream, mediaType, forceCompress } = types.ImageImportStream.decode(bytes);
        const compressLayers = forceCompress;
        return { kind: 'import', stream: open(stream), mediaType, compressLayers };
      }
      case `${PACKAGE}ImageExportStream`: {
        const message = types.ImageExportStream.decode(bytes);
        const options = exportOptionsFromWire(message);
        return { kind: 'export', stream: open(message.stream), options };
      }
      default:
        return { kind: 'other' };
    }
  } catch (error) {
    if (error instanceof OpError) throw error;
    throw new OpError('InvalidArgument', `the ${type} is malformed: ${messageOf(error)}`);
  }
}

const tellNobody: Report = async () => undefined;

const reporterTo =
  (stream: Stream): Report =>
  async (progress) => {
    const value = types.Progress.encode(progressToWire(progress)).finish();
    try {
      await stream.send({ typeUrl: `${PACKAGE}Progress`, value });
    } catch (error) {
      // Nobody looks: the transfer goes on.
      if (!isOpError(error, 'Canceled')) throw error;
    }
  };
