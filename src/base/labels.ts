/** Labels are Maps, never plain objects: `__proto__` and `constructor` are legal label keys. */
export type Labels = ReadonlyMap<string, string>;

export const NO_LABELS: Labels = new Map();

/** A label with an empty value is not stored; that is how containerd's metadata treats it. */
export function withoutEmptyLabels(labels: Labels): Labels {
  const kept = new Map<string, string>();
  for (const [key, value] of labels) if (value !== '') kept.set(key, value);
  return kept;
}
