import type { ListedMount } from './mount.ts';

/** What may stand in front of a type, with a slash behind it. */
export type Transformer = 'format' | 'mkdir';

export interface PlannedMount {
  /** In the order in which they apply. */
  readonly transformers: readonly Transformer[];
  readonly mount: ListedMount;
}

/** The mounts without the transformers in their types, and which of them are to be made here. */
export interface Plan {
  readonly here: readonly PlannedMount[];
  readonly byClient: readonly PlannedMount[];
}

/**
 * What a client cannot do by itself is to transform a mount, or to make one of type `loop`. What comes before
 * a transformed one has to be there when it is transformed; so has a loop device before all behind it.
 * @param all whether the client wants to make none itself
 * @returns undefined where the client needs nobody
 */
export function planOf(mounts: readonly ListedMount[], all: boolean): Plan | undefined {
  const planned = mounts.map(withoutTransformers);
  let count: number | undefined;
  for (const [index, { mount, transformers }] of planned.entries()) {
    if (transformers.length > 0) count = index;
    if (mount.type === 'loop' || all) count = index + 1;
  }
  if (count === undefined) return undefined;
  return { here: planned.slice(0, count), byClient: planned.slice(count) };
}

function withoutTransformers(mount: ListedMount): PlannedMount {
  const parts = mount.type.split('/');
  const unknown = parts.findIndex((part) => part !== 'format' && part !== 'mkdir');
  // The last part is the type itself, whatever it is called.
  const count = unknown === -1 ? parts.length - 1 : Math.min(unknown, parts.length - 1);
  return {
    transformers: parts.slice(0, count).map((part) => (part === 'format' ? 'format' : 'mkdir')),
    mount: { ...mount, type: parts.slice(count).join('/') },
  };
}
