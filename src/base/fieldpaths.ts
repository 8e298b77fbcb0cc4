import { OpError, quote } from './errors.ts';
import type { Labels } from './labels.ts';
import { withoutEmptyLabels } from './labels.ts';

const LABELS = 'labels';
const ONE_LABEL = 'labels.';

/**
 * The labels that an Update leaves behind. No path, or `labels`: those given replace all. `labels.KEY`:
 * that one is taken from those given, or deleted where it is absent there; KEY is all that follows the
 * first dot. Several paths apply in turn, or, with a bad one among them, not at all.
 * @param paths the update mask as it came over the wire
 * @throws OpError InvalidArgument for any other path: nothing but labels can change
 */
export function updateLabels(
  current: Labels,
  given: Labels,
  paths: readonly string[],
): ReadonlyMap<string, string> {
  if (paths.length === 0) return withoutEmptyLabels(given);
  let labels = new Map(current);
  for (const path of paths) {
    if (path === LABELS) {
      labels = new Map(given);
    } else if (path.startsWith(ONE_LABEL)) {
      const key = path.slice(ONE_LABEL.length);
      labels.set(key, given.get(key) ?? '');
    } else {
      throw new OpError(
        'InvalidArgument',
        `field path ${quote(path)}: only labels can be updated, use "labels" or "labels.KEY"`,
      );
    }
  }
  return withoutEmptyLabels(labels);
}
