import type { Labels } from '../../base/labels.ts';
import { NO_LABELS } from '../../base/labels.ts';

/** How the generated codecs hold a map field. */
export type WireMap = { [key: string]: string };

/** The codecs keep `__proto__` as an own property, so a Map gets every key that was on the wire. */
export function labelsFromWire(map: WireMap): Labels {
  const keys = Object.keys(map);
  if (keys.length === 0) return NO_LABELS;
  const labels = new Map<string, string>();
  for (const key of keys) labels.set(key, map[key] ?? '');
  return labels;
}

export function labelsToWire(labels: Labels): WireMap {
  // Without a prototype, `__proto__` is a key like any other.
  const map: WireMap = Object.create(null);
  for (const [key, value] of labels) map[key] = value;
  return map;
}
