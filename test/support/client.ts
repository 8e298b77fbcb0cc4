// Stand-in until src/grpc/proxy lands: our contracts over the wire, by proto-loader.
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { OpError, ERROR_CODES, type ErrorCode } from '../../src/base/errors.ts';
import { parseDigest, type Digest } from '../../src/base/digest.ts';
import type { RequestContext } from '../../src/base/context.ts';
import type { Labels } from '../../src/base/labels.ts';
import type {
  Announced,
  ContentStore,
  Info as BlobInfo,
  Status,
  Writer,
} from '../../src/content/content.ts';
import type { Info, Kind, Mount, Snapshotter, Usage } from '../../src/snapshotters/snapshotter.ts';

/* eslint-disable typescript/no-explicit-any */
const base = '/root/.cache/ballast/conformance/root/usr/share/gocode/src';
const def = loadSync(
  ['snapshots', 'content'].map(
    (s) => `github.com/containerd/containerd/api/services/${s}/v1/${s}.proto`,
  ),
  {
    includeDirs: [
      base,
      `${base}/github.com/containerd/containerd/vendor`,
      `${base}/github.com/gogo/protobuf`,
    ],
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
  },
);
const pkg: any = grpc.loadPackageDefinition(def);
const opts = {
  'grpc.max_receive_message_length': 16 << 20,
  'grpc.max_send_message_length': 16 << 20,
  'grpc.use_local_subchannel_pool': 1,
};
const ns = (t: any) => BigInt(t?.seconds ?? 0) * 1000000000n + BigInt(t?.nanos ?? 0);
const opErr = (e: any) => new OpError(codeName(e.code), e.details ?? String(e));
const NUM: Record<number, ErrorCode> = {
  1: 'Canceled',
  2: 'Unknown',
  3: 'InvalidArgument',
  4: 'DeadlineExceeded',
  5: 'NotFound',
  6: 'AlreadyExists',
  7: 'PermissionDenied',
  8: 'ResourceExhausted',
  9: 'FailedPrecondition',
  10: 'Aborted',
  11: 'OutOfRange',
  12: 'Unimplemented',
  13: 'Internal',
  14: 'Unavailable',
  15: 'DataLoss',
  16: 'Unauthenticated',
};
const codeName = (n: number): ErrorCode => NUM[n] ?? ERROR_CODES[1];
const map = (o: any): Labels => new Map(Object.entries(o ?? {}));
const obj = (m: Labels) => {
  const o = Object.create(null);
  for (const [k, v] of m) Object.defineProperty(o, k, { value: v, enumerable: true });
  return o;
};

function unary(client: any, method: string, request: any, ctx: RequestContext): Promise<any> {
  return new Promise((resolve, reject) => {
    const call = client[method](request, (e: any, r: any) => {
      ctx.signal.removeEventListener('abort', stop);
      e ? reject(opErr(e)) : resolve(r);
    });
    const stop = () => call.cancel();
    ctx.signal.addEventListener('abort', stop);
  });
}
async function* stream(client: any, method: string, request: any): AsyncIterable<any> {
  const call = client[method](request);
  try {
    for await (const m of call) yield m;
  } catch (e) {
    throw opErr(e);
  } finally {
    call.cancel();
  }
}
const kinds: Record<string, Kind> = { VIEW: 'view', ACTIVE: 'active', COMMITTED: 'committed' };
const info = (i: any): Info => ({
  kind: kinds[i.kind] ?? 'active',
  name: i.name,
  parent: i.parent,
  labels: map(i.labels),
  createdAt: ns(i.created_at),
  updatedAt: ns(i.updated_at),
});
const mounts = (r: any): Mount[] =>
  r.mounts.map((m: any) => ({ type: m.type, source: m.source, options: m.options }));

class SnapClient implements Snapshotter {
  #c: any;
  #s: string;
  constructor(c: any, s: string) {
    this.#c = c;
    this.#s = s;
  }
  #u(m: string, r: any, ctx: RequestContext) {
    return unary(this.#c, m, { snapshotter: this.#s, ...r }, ctx);
  }
  async stat(ctx: RequestContext, key: string) {
    return info((await this.#u('Stat', { key }, ctx)).info);
  }
  async update(ctx: RequestContext, c: { name: string; labels: Labels }, paths: readonly string[]) {
    return info(
      (
        await this.#u(
          'Update',
          {
            info: { name: c.name, labels: obj(c.labels) },
            update_mask: paths.length ? { paths } : undefined,
          },
          ctx,
        )
      ).info,
    );
  }
  async usage(ctx: RequestContext, key: string): Promise<Usage> {
    const r = await this.#u('Usage', { key }, ctx);
    return { size: Number(r.size), inodes: Number(r.inodes) };
  }
  async mounts(ctx: RequestContext, key: string) {
    return mounts(await this.#u('Mounts', { key }, ctx));
  }
  async prepare(ctx: RequestContext, key: string, parent: string, labels: Labels) {
    return mounts(await this.#u('Prepare', { key, parent, labels: obj(labels) }, ctx));
  }
  async view(ctx: RequestContext, key: string, parent: string, labels: Labels) {
    return mounts(await this.#u('View', { key, parent, labels: obj(labels) }, ctx));
  }
  async commit(ctx: RequestContext, name: string, key: string, labels: Labels, parent: string) {
    await this.#u('Commit', { name, key, labels: obj(labels), parent }, ctx);
  }
  async remove(ctx: RequestContext, key: string) {
    await this.#u('Remove', { key }, ctx);
  }
  async *walk(_: RequestContext, filters: readonly string[]) {
    for await (const m of stream(this.#c, 'List', { snapshotter: this.#s, filters }))
      for (const i of m.info) yield info(i);
  }
  async cleanup(ctx: RequestContext) {
    await this.#u('Cleanup', {}, ctx);
  }
  async [Symbol.asyncDispose]() {}
}
const binfo = (i: any): BlobInfo => ({
  digest: parseDigest(i.digest),
  size: Number(i.size),
  labels: map(i.labels),
  createdAt: ns(i.created_at),
  updatedAt: ns(i.updated_at),
});
const status = (s: any): Status => ({
  ref: s.ref,
  offset: Number(s.offset),
  total: Number(s.total),
  startedAt: ns(s.started_at),
  updatedAt: ns(s.updated_at),
});
class WriterClient implements Writer {
  #call: any;
  #ref: string;
  #wait: { resolve: (v: any) => void; reject: (e: unknown) => void }[] = [];
  #end: unknown;
  #st: any;
  #announced: any = {};
  #closed: Promise<void>;
  constructor(call: any, ref: string) {
    this.#call = call;
    this.#ref = ref;
    this.#closed = new Promise((done) => {
      call.on('status', () => done());
    });
    call.on('data', (m: any) => this.#wait.shift()?.resolve(m));
    const end = (e: unknown) => {
      this.#end ??= e;
      for (const w of this.#wait.splice(0)) w.reject(this.#end);
    };
    call.on('error', (e: any) => end(opErr(e)));
    call.on('end', () => setImmediate(() => end(new OpError('Unavailable', 'stream ended'))));
  }
  async #send(m: any): Promise<any> {
    if (this.#end) throw this.#end;
    const r = await new Promise<any>((resolve, reject) => {
      this.#wait.push({ resolve, reject });
      this.#call.write({ ref: this.#ref, ...m });
    });
    this.#st = { ...this.#st, ...r };
    return r;
  }
  async open(a: Announced) {
    await this.#send({ action: 'STAT', total: String(a.total ?? 0), expected: a.expected ?? '' });
  }
  status() {
    return { ...status({ ...this.#st, ref: this.#ref }), digest: parseDigest(this.#st.digest) };
  }
  async announce(a: Announced) {
    await this.#send({ action: 'STAT', total: String(a.total ?? 0), expected: a.expected ?? '' });
  }
  async write(offset: number, data: Uint8Array) {
    const r = await this.#send({ action: 'WRITE', offset: String(offset), data });
    this.#st.offset = r.offset;
  }
  async commit(labels: Labels): Promise<Digest> {
    const r = await this.#send({ action: 'COMMIT', labels: obj(labels), offset: this.#st.offset });
    await this.#closed;
    return parseDigest(r.digest);
  }
  async [Symbol.asyncDispose]() {
    this.#call.end();
    await this.#closed;
  }
}
class ContentClient implements ContentStore {
  #c: any;
  constructor(c: any) {
    this.#c = c;
  }
  async info(ctx: RequestContext, digest: Digest) {
    return binfo((await unary(this.#c, 'Info', { digest }, ctx)).info);
  }
  async update(
    ctx: RequestContext,
    c: { digest: Digest; labels: Labels },
    paths: readonly string[],
  ) {
    return binfo(
      (
        await unary(
          this.#c,
          'Update',
          {
            info: { digest: c.digest, labels: obj(c.labels) },
            update_mask: paths.length ? { paths } : undefined,
          },
          ctx,
        )
      ).info,
    );
  }
  async *walk(_: RequestContext, filters: readonly string[]) {
    for await (const m of stream(this.#c, 'List', { filters }))
      for (const i of m.info) yield binfo(i);
  }
  async delete(ctx: RequestContext, digest: Digest) {
    await unary(this.#c, 'Delete', { digest }, ctx);
  }
  async *read(_: RequestContext, digest: Digest, offset: number, size: number) {
    for await (const m of stream(this.#c, 'Read', {
      digest,
      offset: String(offset),
      size: String(size),
    }))
      yield m.data as Uint8Array;
  }
  async status(ctx: RequestContext, ref: string) {
    return status((await unary(this.#c, 'Status', { ref }, ctx)).status);
  }
  async statuses(ctx: RequestContext, filters: readonly string[]) {
    return (await unary(this.#c, 'ListStatuses', { filters }, ctx)).statuses.map(status);
  }
  async abort(ctx: RequestContext, ref: string) {
    await unary(this.#c, 'Abort', { ref }, ctx);
  }
  async writer(ctx: RequestContext, ref: string, a: Announced) {
    const call = this.#c.Write();
    ctx.signal.addEventListener('abort', () => call.cancel());
    const w = new WriterClient(call, ref);
    await w.open(a);
    return w;
  }
  async [Symbol.asyncDispose]() {}
}
export interface Client extends AsyncDisposable {
  readonly content: ContentStore;
  readonly snapshotter: Snapshotter;
  serving(): Promise<boolean>;
}
export function connect(socket: string, snapshotter: string): Client {
  const cred = grpc.credentials.createInsecure();
  const s = new pkg.containerd.services.snapshots.v1.Snapshots(`unix:${socket}`, cred, opts);
  const c = new pkg.containerd.services.content.v1.Content(`unix:${socket}`, cred, opts);
  return {
    content: new ContentClient(c),
    snapshotter: new SnapClient(s, snapshotter),
    serving: () =>
      new Promise((resolve, reject) => {
        c.makeUnaryRequest(
          '/grpc.health.v1.Health/Check',
          (b: Buffer) => b,
          (b: Buffer) => b,
          Buffer.alloc(0),
          (e: any, r: any) => {
            e && e.code !== 12 ? reject(opErr(e)) : resolve(e || r.equals(Buffer.from([8, 1])));
          },
        );
      }),
    async [Symbol.asyncDispose]() {
      s.close();
      c.close();
    },
  };
}
