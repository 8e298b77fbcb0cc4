/** One line of a table that compare.mjs wrote: medians over its rounds. */
export interface Measured {
  readonly work: string;
  readonly figure: string;
  readonly ours: number;
  readonly peer: number;
  /** Above 1: ours is better. */
  readonly ratio: number;
}

/** The disks of the two tables: each sync takes 1 ms, or nothing to speak of. */
export type Disk = 'slow' | 'memory';

export interface Goal {
  readonly what: string;
  /** Which line of compare.mjs's table. */
  readonly work: string;
  readonly figure: 'ops/s' | 'MB/s';
  readonly slow?: number;
  readonly memory?: number;
}

/** For 1 client and for 64, by disk. */
type GoalsByDisk = Partial<Readonly<Record<Disk, readonly [number, number]>>>;

const atEach = (
  what: string,
  work: (clients: number) => string,
  { slow, memory }: GoalsByDisk,
): readonly Goal[] =>
  [1, 64].map((clients, column) => ({
    what: `${what}, ${clients} ${clients === 1 ? 'client' : 'clients'}`,
    work: work(clients),
    figure: 'ops/s',
    ...(slow && { slow: slow[column] ?? 0 }),
    ...(memory && { memory: memory[column] ?? 0 }),
  }));

const MEMORY_ONLY = { memory: [0.6, 0.4] } as const;

const SNAPSHOTS: readonly Goal[] = [
  ...atEach('Prepare', (n) => `snap.prepare, conc ${n}`, { slow: [1.2, 10], memory: [0.9, 2.5] }),
  ...atEach('Commit', (n) => `snap.commit, conc ${n}`, { slow: [0.7, 8], memory: [0.7, 2.5] }),
  ...atEach('Remove', (n) => `snap.remove, conc ${n}`, { slow: [1.5, 10], memory: [2, 10] }),
];

/** On btrfs the reference too waits for a transaction, which carries the files. */
const SNAPSHOTS_ON_BTRFS: readonly Goal[] = [
  ...atEach('Prepare', (n) => `snap.prepare, conc ${n}`, { slow: [1, 5], memory: [1, 5] }),
  ...atEach('Commit', (n) => `snap.commit, conc ${n}`, { slow: [1, 5], memory: [1, 5] }),
  ...atEach('Remove', (n) => `snap.remove, conc ${n}`, { slow: [2, 10], memory: [2, 10] }),
];

const OTHERS: readonly Goal[] = [
  ...atEach('4 KiB blob', (n) => `content.write, conc ${n}, 4096 B`, {
    slow: [1.5, 5],
    memory: [1.1, 2.2],
  }),
  ...atEach('Stat', (n) => `snap.stat, conc ${n}`, MEMORY_ONLY),
  ...atEach('Mounts', (n) => `snap.mounts, conc ${n}`, MEMORY_ONLY),
  ...atEach('Usage', (n) => `snap.usage, conc ${n}`, MEMORY_ONLY),
  ...atEach('Info', (n) => `content.info, conc ${n}`, MEMORY_ONLY),
  ...atEach('Read of 4 KiB', (n) => `content.read, conc ${n}, 4096 B`, MEMORY_ONLY),
  ...[1, 4].flatMap((n): Goal[] => [
    {
      what: `blob of 64 MiB, write, ${n} at once`,
      work: `content.write, conc ${n}, 64 MiB`,
      figure: 'MB/s',
      memory: 1,
    },
    {
      what: `blob of 64 MiB, read, ${n} at once`,
      work: `content.read, conc ${n}, 64 MiB`,
      figure: 'MB/s',
      memory: 0.8,
    },
  ]),
];

/** Ratios to the reference that the service is to reach; those without a goal are told all the same. */
export const goalsFor = (snapshotter: string): readonly Goal[] => [
  ...(snapshotter === 'btrfs' ? SNAPSHOTS_ON_BTRFS : SNAPSHOTS),
  ...OTHERS,
];

/** With `durability = "metadata"`, which is what the reference promises but on btrfs, where both do the same. */
export const metadataGoalsFor = (snapshotter: string): readonly Goal[] =>
  snapshotter === 'btrfs' ? [] : METADATA_GOALS;

const METADATA_GOALS: readonly Goal[] = [1, 64].map((n) => ({
  what: `Commit with durability "metadata", ${n} ${n === 1 ? 'client' : 'clients'}`,
  work: `snap.commit, conc ${n}`,
  figure: 'ops/s',
  slow: n === 1 ? 1.2 : 10,
}));

const CHANGES = { slow: [1.2, 8], memory: [0.9, 1.5] } as const;
const LOOKS = { slow: [0.6, 0.5], memory: [0.6, 0.5] } as const;

/** Ratios of the standalone socket to that of a whole containerd. */
export const CONTAINERD_GOALS: readonly Goal[] = [
  ...atEach('Prepare', (n) => `snap.prepare, conc ${n}`, CHANGES),
  ...atEach('Commit', (n) => `snap.commit, conc ${n}`, CHANGES),
  ...atEach('Remove', (n) => `snap.remove, conc ${n}`, CHANGES),
  ...atEach('lease, Create', (n) => `lease.create, conc ${n}`, CHANGES),
  ...atEach('lease, AddResource', (n) => `lease.add, conc ${n}`, CHANGES),
  ...atEach('lease, Delete', (n) => `lease.delete, conc ${n}`, CHANGES),
  ...atEach('lease, Delete with sync', (n) => `lease.delete-sync, conc ${n}`, CHANGES),
  ...atEach('image, Create', (n) => `image.create, conc ${n}`, CHANGES),
  ...atEach('image, Update', (n) => `image.update, conc ${n}`, CHANGES),
  ...atEach('image, Delete', (n) => `image.delete, conc ${n}`, CHANGES),
  ...atEach('image, Get', (n) => `image.get, conc ${n}`, LOOKS),
  ...atEach('image, List of 300', (n) => `image.list, conc ${n}, 300 there`, LOOKS),
  ...atEach('lease, List of 300', (n) => `lease.list, conc ${n}, 300 there`, LOOKS),
  ...atEach('lease, ListResources', (n) => `lease.resources, conc ${n}`, LOOKS),
  ...atEach('Stat', (n) => `snap.stat, conc ${n}`, LOOKS),
  ...atEach('Mounts', (n) => `snap.mounts, conc ${n}`, LOOKS),
  ...atEach('Usage', (n) => `snap.usage, conc ${n}`, LOOKS),
  ...atEach('4 KiB blob', (n) => `content.write, conc ${n}, 4096 B`, {}),
  ...atEach('Read of 4 KiB', (n) => `content.read, conc ${n}, 4096 B`, LOOKS),
];

/** Prepare at 10 000 snapshots against Prepare on an empty store, both ours. */
export const GROWTH_LOSS_MAX = 0.1;
/** On btrfs: Prepare on a parent of 1 GB against one of 10 MB. */
export const LARGE_PARENT_TIMES_MAX = 1.25;
export const IDLE_MB_MAX = 90;
export const LOADED_MB_MAX = 160;
/** While a collection over so many objects runs, no other call waits so much longer because of it, in milliseconds. */
export const STALL_OBJECTS = 100_000;
export const STALL_MS_MAX = 20;
