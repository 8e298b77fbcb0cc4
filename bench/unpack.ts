// Unpacks the same image through containerd 2.x with ballast as its snapshotter, store and differ, through
// containerd alone, and by GNU tar, in turn; made durable at the end; writes docs/performance.md.
//
//   npm run bench:unpack [-- --rounds 3]
//
// Needs debootstrap and umoci; igzip (package isal), which containerd uses where it is in its PATH.
import { randomUUID } from 'node:crypto';
import { access, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { parseArgs } from 'node:util';
import { background } from '../src/base/context.ts';
import { PLAIN_LAYER, type Descriptor } from '../src/diff/diff.ts';
import { bigImage, debianImage, type Image } from '../test/interop/images.ts';
import { Containerd, RELEASES } from '../test/interop/containerd.ts';
import { Program } from '../test/interop/program.ts';
import type { Client } from '../test/support/client.ts';
import { Daemon } from '../test/support/daemon.ts';
import { loopFileSystem } from '../test/support/loop-fs.ts';
import { run } from '../test/support/run.ts';
import { repository } from '../test/support/temporary.ts';

const { values: options } = parseArgs({ options: { rounds: { type: 'string', default: '3' } } });
const rounds = Number(options.rounds);
const DISK_MB = 12_288;
const ballast = join(repository, 'bin/ballast');
const ZSTD_LAYER = `${PLAIN_LAYER}+zstd`;
const build = process.env['BUILD'] ?? join(homedir(), '.cache/ballast/conformance');
const loadgen = join(build, 'deb/loadgen');
const [release] = RELEASES.filter(({ name }) => name === '2.x');

interface Measured {
  readonly wallMs: number;
  readonly cpuMs: number;
  /** Highest resident set of the daemons, less what they had before. */
  readonly memoryMb: number;
}

/**
 * Warm: the image is in caches, and the daemons have unpacked another one before. Cold: nothing is in caches. New: nor
 * have the daemons done anything since they started.
 */
type State = 'warm' | 'cold' | 'new';

/** Where the image is unpacked. */
type Disk = 'memory' | 'disk';

/** One way to unpack an image into a new folder. */
interface Way {
  readonly name: string;
  unpack(image: Image, folder: string, state: State): Promise<Measured>;
}

const ours: Way = {
  name: 'containerd with ballast',
  unpack: (image, folder, state) => throughContainerd(image, folder, { state, ours: true }),
};
const withIgzip: Way = {
  name: 'containerd, igzip',
  unpack: (image, folder, state) => throughContainerd(image, folder, { state, ours: false }),
};
const withoutIgzip: Way = {
  name: 'containerd',
  unpack: (image, folder, state) =>
    throughContainerd(image, folder, { state, ours: false, hidden: 'igzip' }),
};
const tar: Way = { name: 'tar xzf', unpack: byTar };

interface Through {
  readonly state: State;
  readonly ours: boolean;
  /** A program that containerd is not to find. */
  readonly hidden?: string;
}

async function throughContainerd(
  image: Image,
  folder: string,
  { state, ours: isOurs, hidden }: Through,
): Promise<Measured> {
  if (release === undefined) throw new Error('no containerd 2.x');
  const namespace = `bench-${randomUUID()}`;
  const program = isOurs ? await startBallast(folder) : undefined;
  const dropIn = program === undefined ? 'version = 2\n' : await printed(folder);
  await using hiding = await pathWithout(hidden);
  const started = { release, folder, namespace, dropIn, path: hiding.path };
  const containerd = await Containerd.start(started);
  try {
    const daemons = [await containerd.daemonPid(), ...(program === undefined ? [] : [program.pid])];
    const target = join(folder, 'target');
    await mkdir(target);
    const snapshotter = isOurs ? 'ballast-overlay' : 'overlayfs';
    if (state !== 'new') {
      const unpackAnother = await imported(containerd, await debianImage(), snapshotter, target);
      await unpackAnother();
      await run('umount', [target]);
    }
    const unpack = await imported(containerd, image, snapshotter, target);
    try {
      return await measured(folder, daemons, state, unpack);
    } finally {
      await run('umount', [target]);
    }
  } finally {
    await containerd.stop();
    await program?.stop('SIGKILL');
  }
}

/** @returns what unpacks it */
async function imported(
  containerd: Containerd,
  { archive, baseName, reference }: Image,
  snapshotter: string,
  target: string,
): Promise<() => Promise<void>> {
  await containerd.ctr('images', 'import', '--no-unpack', '--base-name', baseName, archive);
  const mount = ['mount', '--snapshotter', snapshotter, reference, target];
  return async () => {
    await containerd.ctr('images', ...mount);
  };
}

const config = (folder: string): string => join(folder, 'ballast-config.toml');

async function startBallast(folder: string): Promise<Program> {
  await writeFile(
    config(folder),
    `root = "${folder}/ballast"\ncontainerd_address = "${folder}/containerd.sock"\n[plugin]\nsocket = "${folder}/ballast.sock"\n[snapshotter.ballast-overlay]\ndriver = "overlay"\n`,
  );
  const program = new Program(ballast, ['serve', '--config', config(folder)]);
  await program.says(/"serving"/);
  return program;
}

const printed = (folder: string): Promise<string> =>
  run(ballast, [
    ...'config print containerd --version 2.x --content --differ --config'.split(' '),
    config(folder),
  ]);

/** PATH with a folder of links in the place of each that holds the program. */
async function pathWithout(program?: string): Promise<AsyncDisposable & { readonly path: string }> {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  const made: string[] = [];
  const replaced = program === undefined ? folders : [];
  for (const folder of program === undefined ? [] : folders) {
    if (program === undefined || !(await exists(join(folder, program)))) {
      replaced.push(folder);
      continue;
    }
    const links = await mkdtemp(join(tmpdir(), 'path-'));
    made.push(links);
    const names = (await readdir(folder)).filter((name) => name !== program);
    await run('ln', ['-s', ...names.map((name) => join(folder, name)), links]);
    replaced.push(links);
  }
  return {
    path: replaced.join(delimiter),
    async [Symbol.asyncDispose]() {
      for (const folder of made) await rm(folder, { recursive: true });
    },
  };
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

async function byTar(image: Image, folder: string, state: State): Promise<Measured> {
  const target = join(folder, 'target');
  await mkdir(target);
  const layers = await layerFiles(image);
  if (state === 'warm') await run('sha256sum', layers);
  return measured(folder, [], state, async () => {
    for (const layer of layers) await run('tar', ['-xzf', layer, '-C', target]);
  });
}

/** In order; as files of the layout. */
async function layerFiles({ layout }: Image): Promise<readonly string[]> {
  const blob = async (path: string): Promise<unknown> => JSON.parse(await readFile(path, 'utf8'));
  const pathOf = (descriptor: unknown): string =>
    join(layout, 'blobs', String(field(descriptor, 'digest')).replace(':', '/'));
  const index = await blob(join(layout, 'index.json'));
  const [manifest] = list(field(index, 'manifests'));
  return list(field(await blob(pathOf(manifest)), 'layers')).map(pathOf);
}

const field = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

/** Wall and CPU time of the work and of a sync of the file system behind it. */
async function measured(
  folder: string,
  daemons: readonly number[],
  state: State,
  work: () => Promise<void>,
): Promise<Measured> {
  if (state === 'warm') await run('sync', []);
  else await dropCaches();
  const before = await Promise.all(daemons.map(residentMb));
  for (const pid of daemons) await writeFile(`/proc/${pid}/clear_refs`, '5');
  const [cpu, began] = [await cpuMs(daemons), performance.now()];
  await work();
  await run('sync', ['-f', folder]);
  const wallMs = performance.now() - began;
  const peaks = await Promise.all(daemons.map((pid) => statusMb(pid, 'VmHWM')));
  const memoryMb = sum(peaks) - sum(before);
  return { wallMs, cpuMs: (await cpuMs(daemons)) - cpu, memoryMb };
}

async function dropCaches(): Promise<void> {
  await run('sync', []);
  await writeFile('/proc/sys/vm/drop_caches', '3');
}

const residentMb = (pid: number): Promise<number> => statusMb(pid, 'VmRSS');

async function statusMb(pid: number, name: string): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) / 1024;
}

/** Of the daemons with the programs they ran, and of ours: tar is a child of this process. */
async function cpuMs(pids: readonly number[]): Promise<number> {
  let ticks = 0;
  for (const pid of pids.length === 0 ? [process.pid] : pids) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    // utime, stime, cutime, cstime behind the name, which may hold blanks. proc(5)
    const fields = stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .map(Number);
    ticks += sum(fields.slice(11, 15));
  }
  return ticks * 10;
}

const sum = (values: readonly number[]): number => values.reduce((total, one) => total + one, 0);
const median = (values: readonly number[]): number =>
  values.toSorted((one, other) => one - other)[values.length >> 1] ?? Number.NaN;

/**
 * Folders on the real disk, removed when all is measured: for minutes ext4 looks for inodes beside those that were just
 * deleted, which made whoever came first after a round a second slower.
 */
const onDisk = new Set<string>();

/** On a file system in memory, or on the disk that /var/tmp is on. */
async function inFolder<T>(disk: Disk, work: (folder: string) => Promise<T>) {
  if (disk === 'memory') {
    await using made = await loopFileSystem('ext4', DISK_MB);
    return await work(made.path);
  }
  const folder = await mkdtemp('/var/tmp/unpack-');
  onDisk.add(folder);
  return await work(folder);
}

interface Figures {
  readonly what: string;
  readonly way: string;
  readonly measured: Measured;
}

async function compare(
  what: string,
  image: Image,
  { disk, state, ways }: { disk: Disk; state: State; ways: readonly Way[] },
): Promise<readonly Figures[]> {
  const all = new Map<string, Measured[]>(ways.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const way of ways) {
      // What others left in memory is not in anybody's way.
      await dropCaches();
      const one = await inFolder(disk, (folder) => way.unpack(image, folder, state));
      all.get(way.name)?.push(one);
      process.stdout.write(`${what}: ${way.name} ${Math.round(one.wallMs)} ms\n`);
    }
  }
  return [...all].map(([way, times]) => ({
    what,
    way,
    measured: {
      wallMs: median(times.map(({ wallMs }) => wallMs)),
      cpuMs: median(times.map(({ cpuMs: ms }) => ms)),
      memoryMb: median(times.map(({ memoryMb }) => memoryMb)),
    },
  }));
}

/** How many times the other's wall and CPU time ours may take. */
interface Goals {
  readonly wall?: number;
  readonly cpu?: number;
}
const GOALS: Readonly<Record<string, Goals>> = {
  [`one layer, ${withIgzip.name}`]: { wall: 0.3, cpu: 0.5 },
  [`one layer, ${withoutIgzip.name}`]: { wall: 0.3, cpu: 0.5 },
  [`one layer, ${tar.name}`]: { wall: 0.45 },
  [`12 layers, ${withoutIgzip.name}`]: { wall: 0.4 },
};

function table(figures: readonly Figures[]): string {
  const lines = [
    '|  |  | wall s | ours, times | goal | CPU s | ours, times | goal | MB more |',
    '| --- | --- | ---: | ---: | --- | ---: | ---: | --- | ---: |',
  ];
  for (const { what, way, measured: one } of figures) {
    const mine = figures.find((other) => other.what === what && other.way === ours.name)?.measured;
    const goals = GOALS[`${what.split(',', 1)[0]}, ${way}`] ?? {};
    /** Seconds, ours as a part of them, and how the goal stands. */
    const cells = (own: number | undefined, other: number, goal: number | undefined): string => {
      const seconds = (other / 1000).toFixed(2);
      if (own === undefined || way === ours.name) return `${seconds} |  | `;
      const verdict =
        goal === undefined ? '' : `${goal} ${own / other <= goal ? 'met' : '**missed**'}`;
      return `${seconds} | ${(own / other).toFixed(2)} | ${verdict}`;
    };
    const wall = cells(mine?.wallMs, one.wallMs, goals.wall);
    const cpu = cells(mine?.cpuMs, one.cpuMs, goals.cpu);
    const memory = way === tar.name ? '' : Math.round(one.memoryMb);
    lines.push(`| ${what} | ${way} | ${wall} | ${cpu} | ${memory} |`);
  }
  return lines.join('\n');
}

/** How long a call that needs no disk waits, in µs, alone and beside a layer that is applied or made. */
async function waiting(image: Image): Promise<string> {
  await using disk = await loopFileSystem('ext4', DISK_MB);
  await using daemon = await Daemon.start({
    root: join(disk.path, 'root'),
    snapshotter: 'overlayfs',
  });
  const { client, socket } = daemon;
  const [file = ''] = await layerFiles(image);
  const layer = await upload(client, file);
  const flags = ['-addr', socket, '-root-label=false'];
  await run(loadgen, ['content-write', ...flags, ...'-n 100 -conc 4 -size 4096'.split(' ')]);
  const lines = ['| while | median µs | p99 µs | longest µs |', '| --- | ---: | ---: | ---: |'];
  const during = async (what: string, work: () => Promise<unknown>): Promise<void> => {
    let isOver = false;
    const over = work().finally(() => {
      isOver = true;
    });
    const all: Record<string, number>[] = [];
    do {
      const info = ['content-info', ...flags, ...'-n 2000 -conc 1 -blobs 100'.split(' ')];
      all.push(JSON.parse((await run(loadgen, info)).trim().split('\n').at(-1) ?? '{}'));
    } while (!isOver);
    await over;
    const most = (name: string): number => Math.max(...all.map((one) => one[name] ?? Number.NaN));
    const middle = median(all.map((one) => one['p50_us'] ?? Number.NaN));
    lines.push(`| ${what} | ${Math.round(middle)} | ${most('p99_us')} | ${most('max_us')} |`);
  };
  await during('nothing else happens', async () => undefined);
  const mounts = await client.snapshotter.prepare(background, 'key', '', new Map());
  await during('a layer is applied', () => client.applier.apply(background, layer, mounts));
  const options = { ref: '', labels: new Map(), sourceDateEpoch: undefined };
  await during('a layer is made, zstd', () =>
    client.comparer.compare(background, [], mounts, { ...options, mediaType: ZSTD_LAYER }),
  );
  return lines.join('\n');
}

async function upload(client: Client, file: string): Promise<Descriptor> {
  const bytes = await readFile(file);
  await using writer = await client.content.writer(background, 'layer', {});
  for (let at = 0; at < bytes.length; at += 1 << 20) {
    await writer.write(at, Buffer.from(bytes.subarray(at, at + (1 << 20))));
  }
  const digest = await writer.commit(new Map());
  return { mediaType: `${PLAIN_LAYER}+gzip`, digest, size: bytes.length };
}

const one = await bigImage('one layer');
const twelve = await bigImage('twelve layers');
const every = [ours, withIgzip, withoutIgzip, tar];
const both = [ours, withoutIgzip];
/** What a new daemon needs more is CPU, on whatever disk. */
const runs: readonly (readonly [Disk, State])[] = [
  ['memory', 'warm'],
  ['memory', 'cold'],
  ['memory', 'new'],
  ['disk', 'warm'],
  ['disk', 'cold'],
];
const figures: Figures[] = [];
try {
  for (const [disk, state] of runs) {
    const where = `${disk === 'memory' ? 'ext4 in memory' : 'the real disk'}, ${state}`;
    const ways = state === 'new' ? both : every;
    figures.push(
      ...(await compare(`one layer, ${where}`, one, { disk, state, ways })),
      ...(await compare(`12 layers, ${where}`, twelve, { disk, state, ways: both })),
    );
  }
} finally {
  for (const folder of onDisk) await rm(folder, { recursive: true, force: true });
}
const [begin, end] = ['<!-- begin unpack -->', '<!-- end unpack -->'];
const document = join(repository, 'docs/performance.md');
const text = await readFile(document, 'utf8');
const [from, to] = [text.indexOf(begin) + begin.length, text.indexOf(end)];
if (to < from) throw new Error(`docs/performance.md lacks the markers ${begin} and ${end}`);
const tables = `Medians over ${rounds} interleaved rounds.

${table(figures)}

How long Info waits, at one client, on ext4 in memory:

${await waiting(one)}`;
await writeFile(document, `${text.slice(0, from)}\n${tables}\n\n${text.slice(to)}`);
process.stdout.write(`${tables}\n`);
