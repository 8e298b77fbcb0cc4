import {
  CONTAINERD_GOALS,
  goalsFor,
  GROWTH_LOSS_MAX,
  IDLE_MB_MAX,
  LOADED_MB_MAX,
  LARGE_PARENT_TIMES_MAX,
  metadataGoalsFor,
  type Disk,
  type Goal,
  type Measured,
} from './goals.ts';

/** All that one run of bench:service measured. */
export interface Results {
  readonly snapshotter: string;
  readonly rounds: number;
  /** By disk; `metadata` with the weaker durability. */
  readonly full: Readonly<Record<Disk, readonly Measured[]>>;
  readonly metadata: readonly Measured[];
  readonly waiting: readonly Waiting[];
  /** Median µs of a Prepare on a parent of 10 MB and of 1 GB, where snapshots are no copies. */
  readonly parentSize?: { readonly small: number; readonly large: number };
}

/** How long a call that needs no disk takes while others are under way. */
export interface Waiting {
  readonly during: string;
  readonly server: 'ours' | 'peer';
  readonly opsPerSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

export const row = (...cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
export const verdict = (met: boolean): string => (met ? 'met' : '**missed**');
export const number = (value: number): string =>
  value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));

function find(table: readonly Measured[], work: string, figure: string): Measured | undefined {
  return table.find((line) => line.work === work && line.figure === figure);
}

/** The tables of docs/performance.md. */
export function markdown(results: Results): string {
  const { snapshotter } = results;
  const fileSystem = snapshotter === 'btrfs' ? 'btrfs' : 'ext4';
  const lines: string[] = [];
  for (const [disk, title] of [
    ['slow', 'On a disk that syncs in 1 ms'],
    ['memory', `On ${fileSystem} in memory`],
  ] as const) {
    lines.push(`### ${title}`, '', ...headOf('reference'));
    for (const goal of goalsFor(snapshotter)) lines.push(goalRow(results.full[disk], goal, disk));
    if (disk === 'slow')
      for (const goal of metadataGoalsFor(snapshotter))
        lines.push(goalRow(results.metadata, goal, disk));
    else lines.push(...growthRows(results.full.memory));
    lines.push('');
  }
  lines.push(
    '### Memory',
    '',
    row('', 'ours, MB', 'reference, MB', 'goal, MB', ''),
    row('---', '---:', '---:', '---:', '---'),
  );
  for (const [work, most] of [
    ['memory idle', IDLE_MB_MAX],
    ['memory after the load', LOADED_MB_MAX],
  ] as const) {
    const line = find(results.full.memory, work, 'RSS MB');
    if (line)
      lines.push(
        row(work, number(line.ours), number(line.peer), `≤ ${most}`, verdict(line.ours <= most)),
      );
  }
  lines.push(...parentSizeRows(results));
  lines.push(
    '',
    '### How long Info waits',
    '',
    row('while', '', 'calls/s', 'median µs', 'p99 µs'),
    row('---', '---', '---:', '---:', '---:'),
  );
  for (const { during, server, opsPerSecond, p50Us, p99Us } of results.waiting) {
    const who = server === 'ours' ? 'ours' : 'reference';
    lines.push(row(during, who, number(opsPerSecond), number(p50Us), number(p99Us)));
  }
  return lines.join('\n');
}

const headOf = (peer: string): readonly string[] => [
  row('', 'ours', peer, 'ratio', 'goal', '', `p99 µs, ours · ${peer}`, 'CPU µs per call'),
  row('---', '---:', '---:', '---:', '---:', '---', '---:', '---:'),
];

/** The tables of the standalone socket beside a whole containerd. */
export function markdownBesideContainerd(
  rounds: number,
  tables: Readonly<Record<Disk, readonly Measured[]>>,
): string {
  const lines = [`Medians over ${rounds} interleaved rounds.`];
  for (const [disk, title] of [
    ['slow', 'On a disk that syncs in 1 ms'],
    ['memory', 'On ext4 in memory'],
  ] as const) {
    lines.push('', `### ${title}`, '', ...headOf('containerd'));
    for (const goal of CONTAINERD_GOALS) lines.push(goalRow(tables[disk], goal, disk));
  }
  return lines.join('\n');
}

function goalRow(table: readonly Measured[], goal: Goal, disk: Disk): string {
  const line = find(table, goal.work, goal.figure);
  if (!line) return row(goal.what, 'not measured', '', '', '', '', '', '');
  const least = goal[disk];
  const pair = (figure: string): string => {
    const other = find(table, goal.work, figure);
    return other ? `${number(other.ours)} · ${number(other.peer)}` : '';
  };
  const unit = goal.figure === 'MB/s' ? ' MB/s' : '';
  return row(
    goal.what,
    number(line.ours) + unit,
    number(line.peer) + unit,
    line.ratio.toFixed(2),
    least === undefined ? '' : String(least),
    least === undefined ? '' : verdict(line.ratio >= least),
    pair('p99 µs'),
    pair('cpu µs/op'),
  );
}

function parentSizeRows({ parentSize }: Results): readonly string[] {
  if (parentSize === undefined) return [];
  const { small, large } = parentSize;
  const times = large / small;
  return [
    '',
    '### How large the parent is',
    '',
    row('', '10 MB, µs', '1 GB, µs', 'times', 'goal', ''),
    row('---', '---:', '---:', '---:', '---:', '---'),
    row(
      'Prepare, 1 client',
      number(small),
      number(large),
      times.toFixed(2),
      `≤ ${LARGE_PARENT_TIMES_MAX}`,
      verdict(times <= LARGE_PARENT_TIMES_MAX),
    ),
  ];
}

function growthRows(table: readonly Measured[]): readonly string[] {
  const empty = find(table, 'snap.prepare, conc 1', 'ops/s');
  const full = find(table, 'snap.prepare, conc 1, 10000 there', 'ops/s');
  if (!empty || !full) return [];
  const ratio = full.ours / empty.ours;
  return [
    row(
      'Prepare at 10 000 snapshots against none, 1 client (ours · reference)',
      number(full.ours),
      number(full.peer),
      `${ratio.toFixed(2)} · ${(full.peer / empty.peer).toFixed(2)}`,
      String(1 - GROWTH_LOSS_MAX),
      verdict(ratio >= 1 - GROWTH_LOSS_MAX),
      '',
      '',
    ),
  ];
}

/** Puts the tables where the document has its markers for this snapshotter. */
export function insertTables(document: string, results: Results): string {
  const rounds = `Medians over ${results.rounds} interleaved rounds.`;
  return insertBetween(document, results.snapshotter, `${rounds}\n\n${markdown(results)}`);
}

/** Puts a text between the document's markers of that name, in the place of what is there. */
export function insertBetween(document: string, name: string, text: string): string {
  const [begin, end] = [`<!-- begin ${name} -->`, `<!-- end ${name} -->`];
  const from = document.indexOf(begin);
  const to = document.indexOf(end);
  if (from < 0 || to < from)
    throw new Error(`docs/performance.md lacks the markers ${begin} and ${end}`);
  return `${document.slice(0, from + begin.length)}\n${text}\n${document.slice(to)}`;
}
