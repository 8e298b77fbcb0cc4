import { parseDigest } from '../../base/digest.ts';
import type { Digest } from '../../base/digest.ts';
import type { Labels } from '../../base/labels.ts';
import type { Announced, Writer, WriterStatus } from '../../content/content.ts';
import { WriteAction } from '../convert/content.ts';
import { labelsToWire } from '../convert/labels.ts';
import { timestampFromWire } from '../convert/timestamps.ts';
import type { containerd } from '../gen/wire.js';
import type { Exchange } from './calls.ts';

type Request = containerd.services.content.v1.WriteContentRequest.$Properties;
type Response = containerd.services.content.v1.WriteContentResponse;

/** As much as containerd's clients send at once. */
const MESSAGE_DATA_BYTES = 8 << 20;

/** A writer of a daemon: one write stream. Its status is as of the last answer. */
export class WriterProxy implements Writer {
  readonly #exchange: Exchange<Request, Response>;
  readonly #ref: string;
  #status: WriterStatus;

  private constructor(exchange: Exchange<Request, Response>, ref: string, first: Response) {
    this.#exchange = exchange;
    this.#ref = ref;
    this.#status = statusOf(ref, first);
  }

  /** @throws OpError as ContentStore.writer */
  static async open(
    exchange: Exchange<Request, Response>,
    ref: string,
    announced: Announced,
  ): Promise<WriterProxy> {
    try {
      return new WriterProxy(exchange, ref, await exchange.send(statRequest(ref, announced)));
    } catch (error) {
      await exchange.finish();
      throw error;
    }
  }

  status(): WriterStatus {
    return this.#status;
  }

  async announce(announced: Announced): Promise<void> {
    const response = await this.#exchange.send(statRequest(this.#ref, announced));
    this.#status = statusOf(this.#ref, response);
  }

  async write(offset: number, data: Uint8Array): Promise<void> {
    let sent = 0;
    do {
      const piece = data.subarray(sent, sent + MESSAGE_DATA_BYTES);
      await this.#send({ action: WriteAction.WRITE, offset: offset + sent, data: piece });
      sent += piece.length;
    } while (sent < data.length);
  }

  async commit(labels: Labels): Promise<Digest> {
    const { offset } = this.#status;
    await this.#send({ action: WriteAction.COMMIT, offset, labels: labelsToWire(labels) });
    return this.#status.digest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#exchange.finish();
  }

  async #send(request: Request): Promise<void> {
    const { offset, digest } = await this.#exchange.send({ ref: this.#ref, ...request });
    this.#status = { ...this.#status, offset, digest: parseDigest(digest) };
  }
}

const statRequest = (ref: string, { total, expected }: Announced): Request => ({
  action: WriteAction.STAT,
  ref,
  total: total ?? 0,
  expected: expected ?? '',
});

function statusOf(ref: string, response: Response): WriterStatus {
  const { offset, total, digest, startedAt, updatedAt } = response;
  return {
    ref,
    offset,
    total,
    digest: parseDigest(digest),
    startedAt: timestampFromWire(startedAt),
    updatedAt: timestampFromWire(updatedAt),
  };
}
