// A client that makes three calls over and over, each on its own 2 ms after its answer, and notes how
// long each took. A process of its own, so that it waits for nothing but the server.
//
//   node bench/gc-pinger.ts SOCKET SNAPSHOTTER   (a line on standard input begins a phase of that name)
//
// At the end of its input it prints all that it noted as JSON.
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { background, type RequestContext } from '../src/base/context.ts';
import { digestOf } from '../src/base/digest.ts';
import { Calls } from '../src/grpc/proxy/calls.ts';
import { connect } from '../src/grpc/proxy/connect.ts';
import { RPC } from '../test/standalone/client.ts';

const [socket = '', snapshotterName = ''] = process.argv.slice(2);
const PAUSE_MS = 2;
const ROOT_LABEL = new Map([['containerd.io/gc.root', 'pinger']]);

const ctx: RequestContext = { signal: background.signal, namespace: 'pinger', leaseId: undefined };
using calls = new Calls(socket);
await using connection = connect(socket);
const { content } = connection;
const snapshotter = connection.snapshots(snapshotterName);

const bytes = Buffer.from('what the pinger asks for');
const blob = digestOf('sha256', createHash('sha256').update(bytes).digest('hex'));
{
  await using writer = await content.writer(ctx, 'pinger', { total: bytes.length, expected: blob });
  await writer.write(0, bytes);
  await writer.commit(ROOT_LABEL);
}
await calls.unary(ctx, RPC.createLease, { id: 'pinger' });

const CALLS: Readonly<Record<string, (turn: number) => Promise<unknown>>> = {
  Info: () => content.info(ctx, blob),
  'Leases.List': () => calls.unary(ctx, RPC.listLeases, { filters: [] }),
  Prepare: (turn) => snapshotter.prepare(ctx, `ping-${turn}`, '', ROOT_LABEL),
};

/** Milliseconds by phase and call. */
const noted: Record<string, Record<string, number[]>> = {};
let phase: Record<string, number[]> | undefined;
let isEnding = false;

async function ping(name: string, call: (turn: number) => Promise<unknown>): Promise<void> {
  for (let turn = 0; !isEnding; turn++) {
    const [own, start] = [phase, performance.now()];
    await call(turn);
    // A call that a phase ends in belongs to both: what it waited for may lie in either.
    for (const each of new Set([own, phase]))
      if (each !== undefined) (each[name] ??= []).push(performance.now() - start);
    await pause(PAUSE_MS);
  }
}

const pings = Object.entries(CALLS).map(([name, call]) => ping(name, call));
process.stdout.write('ready\n');
for await (const name of createInterface(process.stdin)) phase = noted[name] = {};
isEnding = true;
await Promise.all(pings);
process.stdout.write(`${JSON.stringify(noted)}\n`);
