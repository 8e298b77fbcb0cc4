import type { Node } from '../../../gc/collectible.ts';
import type { Chain, Explanation, Goes, Kept, Link, RunSummary, Totals } from '../../../gc/gc.ts';

/** @param now milliseconds since the epoch */
export function explanationText(
  { node, chains, notBefore, collector }: Explanation,
  now: number,
): string {
  const who = collector === '' ? '' : `${collector} decides; by its records\n`;
  if (chains.length === 0) {
    const since = notBefore === undefined ? '' : `, since ${timeText(notBefore)} at the earliest`;
    return `${who}${nodeText(node)} is kept by nothing${since}\n`;
  }
  return `${who}${nodeText(node)} is kept by\n${chains.map((chain) => chainText(chain, now)).join('')}`;
}

function chainText(chain: Chain, now: number): string {
  const { links, omitted } = chain;
  const [root, ...others] = links;
  if (root === undefined) return '';
  const width = Math.max(0, ...others.map(({ by }) => by.length));
  const lines = others.map(({ node, by }) => `    ${by.padEnd(width)}  ${nodeText(node)}\n`);
  if (omitted > 0) lines.splice(links.length / 2 - 1, 0, `    … ${omitted} more\n`);
  return `  ${rootText(root, chain, now)}\n${lines.join('')}`;
}

function rootText({ node }: Link, chain: Chain, now: number): string {
  const { kind, createdAt, expiresAt, labels } = chain;
  const facts = [chain.links.length === 1 ? 'itself' : nodeText(node)];
  if (kind === 'requests') facts.push('which a request builds on');
  else if (kind === 'content' || kind === 'snapshots')
    facts.push('with the label containerd.io/gc.root');
  else if (kind === 'ingests') facts.push(expiresAt === undefined ? 'its writer is there' : '');
  else facts.push(`${ageText(createdAt, now)} old`);
  if (expiresAt !== undefined) facts.push(`until ${timeText(expiresAt)}`);
  for (const [label, value] of labels) {
    if (label !== 'containerd.io/gc.expire') facts.push(printable(`${label}=${value}`));
  }
  return facts.filter((fact) => fact !== '').join(', ');
}

export const goesText = ({ node, bytes }: Goes): string =>
  `${sizeText(bytes).padStart(10)}  ${node.namespace.padEnd(10)}  ${nodeText(node)}\n`;

export function planText({
  totals,
  without,
}: {
  readonly totals: Totals;
  readonly without: readonly Kept[];
}): string {
  const lines = without.map(
    ({ node, unique, shared }) =>
      `${nodeText(node)} alone keeps ${sizeText(unique)}, and shares ${sizeText(shared)} with others\n`,
  );
  return `a collection would remove ${totalsText(totals)}\n${lines.join('')}`;
}

export const runText = ({ totals, elapsedMs, longestMs }: RunSummary): string =>
  `removed ${totalsText(totals)} in ${elapsedMs.toFixed(0)} ms, ${longestMs.toFixed(1)} ms at a time\n`;

function totalsText(totals: Totals): string {
  const parts = Array.from(
    totals,
    ([type, { count, bytes }]) => `${count} ${type}${bytes === 0 ? '' : ` (${sizeText(bytes)})`}`,
  );
  if (parts.length === 0) return 'nothing';
  const all = [...totals.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  return `${sizeText(all)}: ${parts.join(', ')}`;
}

/** Digits that a program can read again: times as RFC 3339, maps as objects. */
export const jsonText = (value: unknown): string =>
  `${JSON.stringify(
    value,
    (_key, each: unknown) => {
      if (typeof each === 'bigint') return exactTimeText(each);
      return each instanceof Map ? Object.fromEntries(each) : each;
    },
    2,
  )}\n`;

const NOUNS: ReadonlyMap<string, string> = new Map([
  ['images', 'image'],
  ['leases', 'lease'],
  ['containers', 'container'],
  ['ingests', 'ingest'],
  ['mounts', 'activation'],
]);

const nodeText = ({ type, key }: Node): string =>
  `${NOUNS.get(type) ?? printable(type)} ${printable(key)}`;

/** Names are what clients chose: none of them moves the cursor. */
const printable = (text: string): string =>
  /^[^\p{C}\p{Z}]+$/u.test(text) ? text : JSON.stringify(text).replaceAll(/\p{C}/gu, escaped);

const escaped = (character: string): string =>
  `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`;

/** @param nanoseconds since the epoch */
const timeText = (nanoseconds: bigint): string =>
  new Date(Number(nanoseconds / 1_000_000n)).toISOString().replace(/\.\d+Z$/, 'Z');

/** As `timeText`, with all its digits. */
const exactTimeText = (nanoseconds: bigint): string =>
  timeText(nanoseconds).replace('Z', `.${String(nanoseconds % 1_000_000_000n).padStart(9, '0')}Z`);

const AGES = [
  [86_400, 'd'],
  [3600, 'h'],
  [60, 'min'],
] as const;

function ageText(createdAt: bigint, now: number): string {
  const seconds = Math.max(0, Math.round(now / 1000 - Number(createdAt / 1_000_000_000n)));
  const [length, unit] = AGES.find(([each]) => seconds >= 2 * each) ?? [1, 's'];
  return `${Math.floor(seconds / length)} ${unit}`;
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

function sizeText(bytes: number): string {
  const unit = bytes < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(bytes) / 10));
  return `${unit === 0 ? bytes : (bytes / 1024 ** unit).toFixed(1)} ${UNITS[unit]}`;
}
