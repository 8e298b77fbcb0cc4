// Collects half of many objects while another client makes calls, in ballast and in containerd 2.x;
// writes docs/performance.md.
//
//   npm run bench:gc [-- --objects 10000,100000] [--containerd-up-to 100000] [--quick]
//
// --quick: 10 000 objects, nothing written. Containerd takes part up to so many objects, if they are there
// within ten minutes.
//
// The objects of containerd are made by 64 clients on its socket. Ours are made in this process, by the
// stores that serve the socket, and lie in the root as the daemon would have left them; the daemon that
// collects them was started afterwards, and collects for the first time.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { RequestContext } from '../src/base/context.ts';
import { background } from '../src/base/context.ts';
import { silentLog } from '../src/base/log.ts';
import { compose } from '../src/daemon/compose.ts';
import { configFor } from '../src/daemon/config.ts';
import { Calls } from '../src/grpc/proxy/calls.ts';
import { drivers } from '../src/snapshotters/drivers.ts';
import { connect } from '../src/grpc/proxy/connect.ts';
import { Containerd, RELEASES } from '../test/interop/containerd.ts';
import { RPC } from '../test/standalone/client.ts';
import { Daemon } from '../test/support/daemon.ts';
import { loopFileSystem } from '../test/support/loop-fs.ts';
import { repository } from '../test/support/temporary.ts';
import {
  expectObjects,
  GARBAGE,
  makeObjects,
  NAMESPACE,
  SNAPSHOTTER,
  type Maker,
} from './gc-objects.ts';
import { gcMarkdown, spreadOf, type Collected, type Spread } from './gc-report.ts';
import { insertBetween } from './report.ts';

const { values: options } = parseArgs({
  options: {
    objects: { type: 'string', default: '10000,100000' },
    'containerd-up-to': { type: 'string', default: '100000' },
    quick: { type: 'boolean', default: false },
  },
});
const sizes = options.quick ? [10_000] : options.objects.split(',').map(Number);
const PEER_MS_MAX = 600_000;
const CLIENTS = 64;
/** So long the pinger has an idle server to itself. */
const IDLE_MS = 5000;
/** A name and its directories, in blocks of 4 KiB, with some air; and the file system's own. */
const diskMbFor = (objects: number): number => 1024 + Math.ceil((objects * 8) / 1024);

const ctx: RequestContext = { signal: background.signal, namespace: NAMESPACE, leaseId: undefined };

/** A server with all the objects. */
interface Server extends AsyncDisposable {
  readonly socket: string;
  readonly pid: number;
}

/** Collects only where a delete waits for it. */
const configOf = (root: string): string => `root = "${root}"
[standalone]
socket = "${root}/s.sock"
[gc]
startup_delay = "0ms"
pause_threshold = 0.0000001
[snapshotter.${SNAPSHOTTER}]
driver = "overlay"
`;

async function startOurs(folder: string, objects: number): Promise<Server> {
  const config = join(folder, 'ballast.toml');
  const root = join(folder, 'root');
  await mkdir(root);
  await writeFile(config, configOf(root));
  {
    const log = { level: undefined, format: undefined };
    await using stores = await compose(configFor({ config, log }, drivers), {
      log: silentLog,
      workers: {
        files: join(repository, 'src/daemon/worker.ts'),
        layers: join(repository, 'src/daemon/layer-worker.ts'),
      },
      onFatal: (error) => {
        throw error;
      },
    });
    const { nouns } = stores;
    if (nouns === undefined) throw new Error('unreachable');
    await stores.recovered;
    await makeObjects(
      {
        content: stores.content,
        snapshotter: stores.snapshotter(SNAPSHOTTER),
        createLease: (to, id) => nouns.leases.create(to, id, new Map()),
        addResource: (to, lease, resource) => nouns.leases.addResource(to, lease, resource),
        createImage: (to, image) => nouns.images.create(to, image),
      },
      objects,
      CLIENTS,
    );
  }
  return Daemon.start({
    root,
    socket: join(root, 's.sock'),
    snapshotter: SNAPSHOTTER,
    command: `${join(repository, 'bin/ballast')} serve --config ${config}`,
  });
}

async function startContainerd(folder: string, objects: number): Promise<Server> {
  const release = RELEASES.find(({ name }) => name === '2.x');
  if (release === undefined) throw new Error('unreachable');
  const containerd = await Containerd.start({
    release,
    folder,
    namespace: NAMESPACE,
    dropIn: `version = 2
[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "24h"
  mutation_threshold = 1000000000
  pause_threshold = 0.0000001
`,
  });
  const socket = join(folder, 'containerd.sock');
  try {
    await using client = connectMaker(socket);
    await makeObjects(client, objects, CLIENTS, AbortSignal.timeout(PEER_MS_MAX));
    return {
      socket,
      pid: await containerd.daemonPid(),
      [Symbol.asyncDispose]: () => containerd.stop(),
    };
  } catch (error) {
    await containerd.stop();
    throw error;
  }
}

function connectMaker(socket: string): Maker & AsyncDisposable {
  const connection = connect(socket);
  const calls = new Calls(socket);
  return {
    content: connection.content,
    snapshotter: connection.snapshots(SNAPSHOTTER),
    createLease: (to, id) => calls.unary(to, RPC.createLease, { id }),
    addResource: (to, id, resource) => calls.unary(to, RPC.addResource, { id, resource }),
    createImage: (to, { name, target }) => {
      const { mediaType, digest, size } = target;
      return calls.unary(to, RPC.createImage, {
        image: { name, target: { mediaType, digest, size } },
      });
    },
    [Symbol.asyncDispose]: async () => {
      calls[Symbol.dispose]();
      await connection[Symbol.asyncDispose]();
    },
  };
}

/** Resident memory and its peak, in MB. */
async function memoryOf(pid: number): Promise<{ readonly now: number; readonly peak: number }> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]) / 1024;
  return { now: field('VmRSS'), peak: field('VmHWM') };
}

/** A delete of the lease that waits for the collection of what it alone kept. */
async function collect(server: Server, objects: number): Promise<Omit<Collected, 'server'>> {
  const { socket, pid } = server;
  const pinger = spawn(
    process.execPath,
    [join(repository, 'bench/gc-pinger.ts'), socket, SNAPSHOTTER],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const said = createInterface(pinger.stdout)[Symbol.asyncIterator]();
  try {
    if ((await said.next()).value !== 'ready') throw new Error('the pinger did not begin');
    await pause(1000);
    pinger.stdin.write('idle\n');
    await pause(IDLE_MS);
    // The peak counts anew from here.
    await writeFile(`/proc/${pid}/clear_refs`, '5');
    const before = await memoryOf(pid);
    pinger.stdin.write('collection\n');
    using calls = new Calls(socket);
    const start = performance.now();
    await calls.unary(ctx, RPC.deleteLease, { id: GARBAGE, sync: true });
    const ms = performance.now() - start;
    const after = await memoryOf(pid);
    pinger.stdin.write('rest\n');
    await pause(1000);
    pinger.stdin.end();
    const noted = phasesOf(JSON.parse(String((await said.next()).value)));
    return {
      objects,
      ms,
      idle: noted('idle'),
      collection: noted('collection'),
      memoryMb: { before: before.now, peak: after.peak, after: after.now },
    };
  } finally {
    if (pinger.exitCode === null) {
      pinger.kill('SIGKILL');
      await once(pinger, 'exit');
    }
  }
}

function phasesOf(noted: unknown): (phase: string) => Readonly<Record<string, Spread>> {
  const own = (value: unknown, name: string): unknown =>
    typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
  return (phase) => {
    const calls = own(noted, phase);
    if (typeof calls !== 'object' || calls === null) return {};
    return Object.fromEntries(
      Object.entries(calls).map(([name, times]: [string, unknown]) => [
        name,
        spreadOf(Array.isArray(times) ? times.map(Number) : []),
      ]),
    );
  };
}

const say = (text: string): void => void process.stdout.write(`${text}\n`);
const since = (start: number): string => `${((performance.now() - start) / 1000).toFixed(1)} s`;

async function measure(server: Collected['server'], objects: number): Promise<Collected> {
  await using disk = await loopFileSystem('ext4', diskMbFor(objects), ['-i', '2048']);
  const start = performance.now();
  const begin = server === 'ours' ? startOurs : startContainerd;
  await using running = await begin(disk.path, objects);
  say(`${server}: ${objects} objects there after ${since(start)}`);
  await using client = connectMaker(running.socket);
  await expectObjects(client, objects, 'all');
  const collected = await collect(running, objects);
  await expectObjects(client, objects, 'kept');
  say(`${server}: collected in ${(collected.ms / 1000).toFixed(2)} s`);
  return { server, ...collected };
}

const results: Collected[] = [];
for (const objects of sizes) {
  results.push(await measure('ours', objects));
  if (objects > Number(options['containerd-up-to'])) continue;
  try {
    results.push(await measure('peer', objects));
  } catch (error) {
    if (!(error instanceof DOMException && error.name === 'TimeoutError')) throw error;
    say(`peer: ${objects} objects are too many to be made within ${PEER_MS_MAX / 1000} s`);
  }
}
say(gcMarkdown(results));
if (!options.quick) {
  await writeFile(
    join(repository, 'bench/results-gc.json'),
    `${JSON.stringify(results, undefined, 1)}\n`,
  );
  const document = join(repository, 'docs/performance.md');
  const text = await readFile(document, 'utf8');
  await writeFile(document, insertBetween(text, 'collecting', gcMarkdown(results)));
}
