// A client of Transfer and Streaming that does what ctr does, and what it doesn't.
import { randomUUID } from 'node:crypto';
import * as grpc from '@grpc/grpc-js';
import type { OpError } from '../../src/base/errors.ts';
import { containerd, google } from '../../src/grpc/gen/wire.js';
import { errorOf } from '../../src/grpc/status.ts';
import { END } from '../support/tar.ts';

export const transferTypes = containerd.types.transfer;
const { StreamInit } = containerd.services.streaming.v1;
const { TransferRequest } = containerd.services.transfer.v1;
const { Any, Empty } = google.protobuf;

type WireAny = google.protobuf.Any.$Properties;

const PACKAGE = 'containerd.types.transfer.';
const WINDOW_BYTES = 64 * 1024;

export interface Headers {
  readonly namespace?: string;
  readonly lease?: string;
}

interface Encoder<T> {
  encode(message: T): { finish(): Uint8Array };
}

export const packed = <T>(name: string, codec: Encoder<T>, message: T): WireAny => ({
  type_url: `${PACKAGE}${name}`,
  value: codec.encode(message).finish(),
});

const bytesOf = (bytes: Uint8Array): Buffer => Buffer.from(bytes);

export class TransferClient implements Disposable {
  readonly #client: grpc.Client;

  constructor(socket: string) {
    this.#client = new grpc.Client(`unix:${socket}`, grpc.credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
    });
  }

  /** The stream is registered when it resolves. @throws OpError as the server ended it */
  async open(headers: Headers, id: string): Promise<ClientStream> {
    const stream = this.raw(headers);
    await stream.send({
      type_url: 'containerd.services.streaming.v1.StreamInit',
      value: StreamInit.encode({ id }).finish(),
    });
    const acknowledged = await stream.receive();
    if (acknowledged === undefined) throw (await stream.ended) ?? new Error('the stream ended');
    return stream;
  }

  /** Nothing was said on it yet. */
  raw(headers: Headers): ClientStream {
    return new ClientStream(
      this.#client.makeBidiStreamRequest(
        '/containerd.services.streaming.v1.Streaming/Stream',
        (message: WireAny) => bytesOf(Any.encode(message).finish()),
        (bytes) => Any.decode(bytes),
        metadataOf(headers),
      ),
    );
  }

  /** @throws OpError as the server answered; Canceled by the signal */
  transfer(
    headers: Headers,
    source: WireAny,
    destination: WireAny,
    { progress = '', signal }: { readonly progress?: string; readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const call = this.#client.makeUnaryRequest(
      '/containerd.services.transfer.v1.Transfer/Transfer',
      (message: containerd.services.transfer.v1.TransferRequest.$Properties) =>
        bytesOf(TransferRequest.encode(message).finish()),
      (bytes) => Empty.decode(bytes),
      { source, destination, options: { progressStream: progress } },
      metadataOf(headers),
      (error) => (error === null ? resolve() : reject(errorOf(error.code, error.details))),
    );
    signal?.addEventListener('abort', () => call.cancel());
    return promise;
  }

  /** As `ctr images import`. @returns what was told meanwhile, without the times */
  async import(
    headers: Headers,
    archive: Uint8Array,
    store: containerd.types.transfer.ImageStore.$Properties,
    more: containerd.types.transfer.ImageImportStream.$Properties = {},
  ): Promise<readonly containerd.types.transfer.Progress[]> {
    // A containerd does not forget streams whose clients have gone.
    const [stream, progressId] = [randomUUID(), randomUUID()];
    const data = await this.open(headers, stream);
    const progress = await this.open(headers, progressId);
    const told = toldOn(progress);
    const sent = data.sendBytes(archive);
    try {
      await this.transfer(
        headers,
        packed('ImageImportStream', transferTypes.ImageImportStream, { stream, ...more }),
        packed('ImageStore', transferTypes.ImageStore, store),
        { progress: progressId },
      );
      return await told;
    } finally {
      data.cancel();
      progress.cancel();
      await sent;
    }
  }

  /** As `ctr images export`. @returns the archive */
  async export(
    headers: Headers,
    names: readonly string[],
    more: containerd.types.transfer.ImageExportStream.$Properties = {},
  ): Promise<Buffer> {
    const stream = randomUUID();
    const data = await this.open(headers, stream);
    const received = data.receiveBytes();
    try {
      await this.transfer(
        headers,
        packed('ImageStore', transferTypes.ImageStore, {
          extraReferences: names.map((name) => ({ name })),
        }),
        packed('ImageExportStream', transferTypes.ImageExportStream, { stream, ...more }),
      );
      // A containerd leaves the stream open: what it has sent is here, or on its way.
      await data.wholeArchive();
      data.cancel();
      return await received;
    } finally {
      data.cancel();
      await received;
    }
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

async function toldOn(
  stream: ClientStream,
): Promise<readonly containerd.types.transfer.Progress[]> {
  const all: containerd.types.transfer.Progress[] = [];
  for (let each = await stream.receive(); each !== undefined; each = await stream.receive()) {
    all.push(transferTypes.Progress.decode(each.value));
  }
  return all;
}

export class ClientStream {
  readonly #call: grpc.ClientDuplexStream<WireAny, google.protobuf.Any>;
  readonly #messages: AsyncIterator<google.protobuf.Any>;
  #tail: Buffer = Buffer.alloc(0);
  #isOver = false;
  #wake: (() => void) | undefined;
  /** How the server ended it: undefined for well. */
  readonly ended: Promise<OpError | undefined>;

  constructor(call: grpc.ClientDuplexStream<WireAny, google.protobuf.Any>) {
    this.#call = call;
    this.#messages = call[Symbol.asyncIterator]();
    const { promise, resolve } = Promise.withResolvers<OpError | undefined>();
    this.ended = promise;
    call.on('error', () => undefined);
    call.on('status', ({ code, details }: grpc.StatusObject) =>
      resolve(code === grpc.status.OK ? undefined : errorOf(code, details)),
    );
  }

  /** Resolves when there is room for more, or the stream has ended: of a write in between nothing is heard. */
  async send(message: WireAny): Promise<void> {
    const written = new Promise<void>((resolve) => {
      this.#call.write(message, () => resolve());
    });
    await Promise.race([written, this.ended]);
  }

  /** @returns undefined at the end, whatever it was */
  async receive(): Promise<google.protobuf.Any | undefined> {
    try {
      const { done, value } = await this.#messages.next();
      return done === true ? undefined : value;
    } catch {
      return undefined;
    }
  }

  /** Sends as much as the server takes, and then the end, or stops with the stream. @returns bytes sent */
  async sendBytes(bytes: Uint8Array, { andEnd = true } = {}): Promise<number> {
    let window = 0;
    let at = 0;
    while (at < bytes.length) {
      while (window === 0) {
        const message = await this.receive();
        if (message === undefined) return at;
        window += transferTypes.WindowUpdate.decode(message.value).update;
      }
      const data = bytes.subarray(at, at + Math.min(window, 32 * 1024));
      await this.send(packed('Data', transferTypes.Data, { data }));
      window -= data.length;
      at += data.length;
    }
    if (andEnd) this.#call.end();
    return at;
  }

  /** Takes what comes, with a window like that of containerd's clients. */
  async receiveBytes(): Promise<Buffer> {
    const pieces: Uint8Array[] = [];
    let window = 0;
    for (;;) {
      if (window < WINDOW_BYTES) {
        window += WINDOW_BYTES;
        await this.grant(WINDOW_BYTES);
      }
      const message = await this.receive();
      if (message === undefined) {
        this.#isOver = true;
        this.#wake?.();
        return Buffer.concat(pieces);
      }
      const { data } = transferTypes.Data.decode(message.value);
      window -= data.length;
      pieces.push(data);
      this.#tail = Buffer.concat([this.#tail, data]).subarray(-END.length);
      this.#wake?.();
    }
  }

  /** Resolves when the bytes received end as an archive does, or there are no more. */
  async wholeArchive(): Promise<void> {
    while (!this.#isOver && !this.#tail.equals(END)) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  grant(update: number): Promise<void> {
    return this.send(packed('WindowUpdate', transferTypes.WindowUpdate, { update }));
  }

  end(): void {
    this.#call.end();
  }

  cancel(): void {
    this.#call.cancel();
  }
}

function metadataOf({ namespace, lease }: Headers): grpc.Metadata {
  const metadata = new grpc.Metadata();
  if (namespace !== undefined) metadata.set('containerd-namespace', namespace);
  if (lease !== undefined) metadata.set('containerd-lease', lease);
  return metadata;
}
