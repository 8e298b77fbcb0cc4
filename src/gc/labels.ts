import type { Labels } from '../base/labels.ts';
import { EXPIRE_LABEL, type Node } from './collectible.ts';

const GC = 'containerd.io/gc.';
const ROOT = `${GC}root`;
const FLAT = `${GC}flat`;
const CONDITION = `${GC}cond.snapshot`;
const USED_AT = `${GC}cond.value-usedat`;

/** A reference that counts while the snapshot's own label says so. */
export interface Condition {
  readonly node: Node;
  /** @param now nanoseconds since the epoch */
  readonly holds: (labels: Labels, now: bigint) => boolean;
}

/** What the labels of a node say of others, all of its own namespace. */
export interface LabelEdges {
  readonly refersTo: readonly Node[];
  /** The nodes that, by a label of this one, refer to it. */
  readonly referredBy: readonly Node[];
  readonly conditions: readonly Condition[];
}

const NO_EDGES: LabelEdges = { refersTo: [], referredBy: [], conditions: [] };

/** @see containerd, docs/garbage-collection.md and core/metadata/gc.go */
export function edgesOf(namespace: string, labels: Labels): LabelEdges {
  if (labels.size === 0) return NO_EDGES;
  const refersTo: Node[] = [];
  const referredBy: Node[] = [];
  const conditions: Condition[] = [];
  for (const [label, value] of labels) {
    if (!label.startsWith(GC)) continue;
    const to = named(label, `${GC}ref.`, [...REFERABLE, ['mount', 'mounts']]);
    if (to !== undefined) refersTo.push({ type: to, namespace, key: value });
    const by = named(label, `${GC}bref.`, [...REFERABLE, ['container', 'containers']]);
    if (by !== undefined) referredBy.push({ type: by, namespace, key: value });
    if (label.startsWith(CONDITION)) conditions.push(...conditionsOf(namespace, label, value));
  }
  return { refersTo, referredBy, conditions };
}

/** Whatever is behind the label's name, as containerd has it. */
export const isRoot = (labels: Labels): boolean =>
  labels.keys().some((label) => label.startsWith(ROOT));

/** Whether a lease keeps what it names alone, not what that refers to. */
export const isFlat = (labels: Labels): boolean => labels.has(FLAT);

/** In nanoseconds since the epoch; undefined without the label, or when it is no time of RFC 3339. */
export function expiryOf(labels: Labels): bigint | undefined {
  const text = labels.get(EXPIRE_LABEL);
  return text === undefined ? undefined : nanosecondsOf(text);
}

/** The nouns by the words of the labels; snapshots have their snapshotter's name behind. */
const REFERABLE: readonly (readonly [string, string])[] = [
  ['content', 'content'],
  ['image', 'images'],
];

/** The type of node that a label names: the word, alone or before a name of the client's own. */
function named(
  label: string,
  prefix: string,
  words: readonly (readonly [string, string])[],
): string | undefined {
  if (!label.startsWith(prefix)) return undefined;
  const rest = label.slice(prefix.length);
  const snapshot = 'snapshot.';
  if (rest.startsWith(snapshot)) return `snapshots/${untilSlash(rest.slice(snapshot.length))}`;
  const found = words.find(
    ([word]) => rest === word || rest.startsWith(`${word}.`) || rest.startsWith(`${word}/`),
  );
  return found?.[1];
}

function untilSlash(text: string): string {
  const slash = text.indexOf('/');
  return slash === -1 ? text : text.slice(0, slash);
}

/** `usedat<24h,usedat>48h|KEY`: any of them is enough; what nobody knows never holds. */
function conditionsOf(namespace: string, label: string, value: string): Condition[] {
  const bar = value.indexOf('|');
  if (bar === -1) return [];
  const snapshotter = untilSlash(label.slice(CONDITION.length).replace(/^[./]+/, ''));
  const node = { type: `snapshots/${snapshotter}`, namespace, key: value.slice(bar + 1) };
  return value
    .slice(0, bar)
    .split(',')
    .flatMap((condition) => {
      const { operator, text = '' } =
        /^usedat(?<operator>[<>])(?<text>.*)$/s.exec(condition)?.groups ?? {};
      const duration = durationOf(text);
      if (operator === undefined || duration === undefined) return [];
      return {
        node,
        holds: (labels: Labels, now: bigint): boolean =>
          usesOf(labels).some((usedAt) =>
            operator === '<' ? now - usedAt < duration : now - usedAt > duration,
          ),
      };
    });
}

function usesOf(labels: Labels): bigint[] {
  const uses: bigint[] = [];
  for (const [label, value] of labels) {
    const time = label.startsWith(USED_AT) ? nanosecondsOf(value) : undefined;
    if (time !== undefined) uses.push(time);
  }
  return uses;
}

const RFC_3339 =
  /^(?<seconds>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](?<fraction>\d+))?(?<zone>Z|[+-]\d\d:\d\d)$/;

function nanosecondsOf(text: string): bigint | undefined {
  const { seconds, fraction = '', zone } = RFC_3339.exec(text)?.groups ?? {};
  const milliseconds = Date.parse(`${seconds}${zone}`);
  if (Number.isNaN(milliseconds)) return undefined;
  return BigInt(milliseconds) * 1_000_000n + BigInt(fraction.padEnd(9, '0').slice(0, 9));
}

const UNITS_NS: ReadonlyMap<string, number> = new Map([
  ['ns', 1],
  ['us', 1e3],
  ['µs', 1e3],
  ['μs', 1e3],
  ['ms', 1e6],
  ['s', 1e9],
  ['m', 60e9],
  ['h', 3600e9],
]);

/** A duration as Go writes it, `1h30m`, in nanoseconds; undefined when it is none. */
export function durationOf(text: string): bigint | undefined {
  const { sign, parts } = /^(?<sign>[+-]?)(?<parts>.+)$/.exec(text)?.groups ?? {};
  if (parts === undefined) return undefined;
  if (parts === '0') return 0n;
  const part = /(?<count>\d+\.?\d*|\.\d+)(?<unit>ns|us|µs|μs|ms|s|m|h)/y;
  let sum = 0;
  for (let at = 0; at < parts.length; at = part.lastIndex) {
    const { count, unit = '' } = part.exec(parts)?.groups ?? {};
    if (count === undefined) return undefined;
    sum += Number(count) * (UNITS_NS.get(unit) ?? 0);
  }
  if (!Number.isFinite(sum)) return undefined;
  return BigInt(Math.round(sign === '-' ? -sum : sum));
}
