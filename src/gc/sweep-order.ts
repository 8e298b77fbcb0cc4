import type { Node } from './collectible.ts';
import { NodeSet } from './mark.ts';

interface Frame {
  readonly node: Node;
  readonly refersTo: Iterator<Node>;
}

/** What it asks, each time about this moment. */
export interface Unreachable {
  nodes(): Iterable<Node>;
  isMarked(node: Node): boolean;
  /** @returns undefined when it is not there */
  referencesOf(node: Node): Iterable<Node> | undefined;
}

/**
 * The order in which unreachable nodes go: each before what it refers to, in steps. Then whatever is still
 * there has all it refers to, when a client takes it up in the middle, or after a crash; and snapshots go
 * before their parents. Only of those that refer to each other in a circle one has to be the first.
 */
export class SweepOrder {
  readonly #graph: Unreachable;
  readonly #nodes: Iterator<Node>;
  readonly #seen = new NodeSet();
  /** The way down to the node that is looked at. */
  readonly #path: Frame[] = [];
  /** What is referred to first. */
  readonly #finished: Node[] = [];

  constructor(graph: Unreachable) {
    this.#graph = graph;
    this.#nodes = graph.nodes()[Symbol.iterator]();
  }

  /** @returns false when nothing is left to look at */
  step(): boolean {
    const frame = this.#path.at(-1);
    if (frame === undefined) {
      const next = this.#nodes.next();
      if (next.done === true) return false;
      this.#enter(next.value);
      return true;
    }
    const to = frame.refersTo.next();
    if (to.done === true) {
      this.#path.pop();
      this.#finished.push(frame.node);
    } else {
      this.#enter(to.value);
    }
    return true;
  }

  get result(): readonly Node[] {
    return this.#finished.toReversed();
  }

  #enter(node: Node): void {
    if (this.#seen.has(node) || this.#graph.isMarked(node)) return;
    const refersTo = this.#graph.referencesOf(node);
    if (refersTo === undefined) return;
    this.#seen.add(node);
    this.#path.push({ node, refersTo: refersTo[Symbol.iterator]() });
  }
}
