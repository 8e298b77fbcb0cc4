import { STALL_MS_MAX, STALL_OBJECTS } from './goals.ts';
import { number, row, verdict } from './report.ts';

/** How long calls took, in milliseconds. */
export interface Spread {
  readonly calls: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** One collection of half of the objects, while another client made calls. */
export interface Collected {
  readonly server: 'ours' | 'peer';
  readonly objects: number;
  readonly ms: number;
  /** By call, before the collection and while it ran. */
  readonly idle: Readonly<Record<string, Spread>>;
  readonly collection: Readonly<Record<string, Spread>>;
  readonly memoryMb: { readonly before: number; readonly peak: number; readonly after: number };
}

export function spreadOf(times: readonly number[]): Spread {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (part: number): number =>
    sorted[Math.max(Math.ceil(part * sorted.length) - 1, 0)] ?? 0;
  return { calls: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) };
}

const nameOf = (server: Collected['server']): string =>
  server === 'ours' ? 'ballast' : 'containerd 2.x';
const spread = ({ p50, p99, max }: Spread): string => [p50, p99, max].map(number).join(' · ');

/** The tables below "Collecting" in docs/performance.md. */
export function gcMarkdown(results: readonly Collected[]): string {
  const lines = [
    row('objects', '', 'collected in', 'objects/s', 'memory before · peak · after, MB'),
    row('---:', '---', '---:', '---:', '---:'),
  ];
  for (const { objects, server, ms, memoryMb } of results) {
    const { before, peak, after } = memoryMb;
    const rate = number((objects / ms) * 1000);
    lines.push(
      row(
        String(objects),
        nameOf(server),
        `${number(ms / 1000)} s`,
        rate,
        [before, peak, after].map(number).join(' · '),
      ),
    );
  }
  lines.push(
    '',
    'How long another client waits, in milliseconds (median · p99 · longest):',
    '',
    row('objects', '', 'call', 'idle', 'during the collection', 'calls', 'longer', 'goal', ''),
    row('---:', '---', '---', '---:', '---:', '---:', '---:', '---', '---'),
  );
  for (const result of results) lines.push(...waits(result));
  return lines.join('\n');
}

function waits({ objects, server, idle, collection }: Collected): readonly string[] {
  return Object.entries(collection).map(([call, during]) => {
    const before = idle[call] ?? { calls: 0, p50: 0, p99: 0, max: 0 };
    const hasGoal = server === 'ours' && objects === STALL_OBJECTS;
    // The idle server has clients wait too, when other processes have its cores.
    const longer = Math.max(0, during.max - before.max);
    return row(
      String(objects),
      nameOf(server),
      call,
      spread(before),
      spread(during),
      String(during.calls),
      number(longer),
      hasGoal ? `≤ ${STALL_MS_MAX}` : '',
      hasGoal ? verdict(longer <= STALL_MS_MAX) : '',
    );
  });
}
