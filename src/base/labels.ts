import { OpError, quote } from './errors.ts';

/** Labels are Maps, never plain objects: `__proto__` and `constructor` are legal label keys. */
export type Labels = ReadonlyMap<string, string>;

export const NO_LABELS: Labels = new Map();

/** On the blob of a layer: its diff ID. containerd's unpacker looks there for it. */
export const UNCOMPRESSED_LABEL = 'containerd.io/uncompressed';

/** A label with an empty value is not stored; that is how containerd's metadata treats it. */
export function withoutEmptyLabels(labels: Labels): Labels {
  const kept = new Map<string, string>();
  for (const [key, value] of labels) if (value !== '') kept.set(key, value);
  return kept.size === 0 ? NO_LABELS : kept;
}

/** What a record has; most have none, and a Map for each of a million things is 200 MB. */
export const labelsFromPairs = (pairs: readonly (readonly [string, string])[] = []): Labels =>
  pairs.length === 0 ? NO_LABELS : new Map(pairs);

/** Bytes of a key and its value together. */
const LABEL_BYTES_MAX = 4096;

/**
 * Checks labels against containerd's limit.
 * @throws OpError InvalidArgument naming the label
 * @see containerd, pkg/labels
 */
export function checkLabels(labels: Labels): void {
  for (const [key, value] of labels) {
    const bytes = Buffer.byteLength(key) + Buffer.byteLength(value);
    if (bytes <= LABEL_BYTES_MAX) continue;
    throw new OpError(
      'InvalidArgument',
      `label ${quote(key)}: key and value have ${bytes} bytes, at most ${LABEL_BYTES_MAX} are allowed`,
    );
  }
}
