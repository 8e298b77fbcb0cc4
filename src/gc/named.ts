import { notFound, OpError, quote } from '../base/errors.ts';
import type { Node } from './collectible.ts';
import type { Graph } from './mark.ts';
import { inSlices, type Pace } from './slices.ts';

/** So much of a digest at least, with its algorithm or without. */
const BEGINNING = /^(?:[a-z0-9+._-]+:)?[0-9a-f]{4,}$/;
const DIGEST = /^[a-z0-9+._-]+:[0-9a-f]{32,}$/;

/**
 * All nodes of the namespace that have this name; if there are none, those whose digest begins so.
 * @throws OpError NotFound; InvalidArgument when several digests begin so
 */
export async function named(
  graph: Graph,
  namespace: string,
  name: string,
  pace: Pace,
): Promise<readonly Node[]> {
  const exact: Node[] = [];
  const begun = new Map<string, Node[]>();
  const isBeginning = BEGINNING.test(name);
  const nodes = graph.nodes()[Symbol.iterator]();
  await inSlices(() => {
    const { done, value: node } = nodes.next();
    if (done === true) return false;
    if (node.namespace !== namespace) return true;
    if (node.key === name) exact.push(node);
    else if (isBeginning && begins(node.key, name)) {
      begun.set(node.key, [...(begun.get(node.key) ?? []), node]);
    }
    return true;
  }, pace);
  if (exact.length > 0) return exact;
  const [first, ...others] = begun.entries();
  if (first === undefined) throw notFound(`${quote(name)} in the namespace ${quote(namespace)}`);
  if (others.length === 0) return first[1];
  throw new OpError(
    'InvalidArgument',
    `${quote(name)} is the beginning of ${begun.size} digests, such as ${first[0]}: give more of it`,
  );
}

const begins = (key: string, beginning: string): boolean =>
  DIGEST.test(key) &&
  (key.startsWith(beginning) || key.startsWith(beginning, key.indexOf(':') + 1));
