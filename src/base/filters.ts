import type { RE2JS } from 're2js';
import { OpError, quote } from './errors.ts';
import { parseFilter } from './filter-grammar.ts';
import type { Selector } from './filter-grammar.ts';
import type { Labels } from './labels.ts';

/** What an object says about itself: the value at a field path, or undefined where it has none. */
export type Adaptor = (fieldpath: readonly string[]) => string | undefined;
export type Filter = (object: Adaptor) => boolean;

/** Well over what any client sends; a longer one is an attack. Characters. */
const FILTERS_LENGTH_MAX = 1 << 20;
/** Instructions. One of a thousand takes 10 ms to compile and 50 for a value of 4 KiB. */
const PATTERN_SIZE_MAX = 2500;
/** Tests cheaper than this (instructions × characters, about 0.2 ms) are not timed. */
const CHEAP = 20_000;
/** How long the patterns of one call may take altogether; the event loop stands still meanwhile. */
const PATTERNS_BUDGET_MS = 1000;

/**
 * Compiles containerd's filters: an object passes if any of them matches it, or if there are none.
 * The grammar and its corners are in filter-grammar.ts. Patterns (`~=`) are RE2's: linear time, no
 * lookaround. One that does not compile matches nothing.
 * @returns may throw OpError InvalidArgument itself, for patterns that cost too much
 * @throws OpError InvalidArgument naming the filter and the place in it
 */
export async function compileFilters(filters: readonly string[]): Promise<Filter> {
  const length = filters.reduce((sum, filter) => sum + filter.length, 0);
  if (length > FILTERS_LENGTH_MAX) {
    throw new OpError(
      'InvalidArgument',
      `filters: ${length} characters, at most ${FILTERS_LENGTH_MAX}`,
    );
  }
  const parsed = filters.map(parseFilter);
  if (parsed.length === 0 || parsed.some((selectors) => selectors.length === 0)) return () => true;
  const isPattern = (selector: Selector): boolean => selector.operator === '~=';
  const patterns = parsed.some((selectors) => selectors.some(isPattern))
    ? await Patterns.load()
    : undefined;
  const alternatives = parsed.map((selectors) =>
    selectors.map((selector) => compileSelector(selector, patterns)),
  );
  return (object) => alternatives.some((all) => all.every((matches) => matches(object)));
}

function compileSelector(selector: Selector, patterns: Patterns | undefined): Filter {
  const { fieldpath, operator, value } = selector;
  switch (operator) {
    case 'present':
      return (object) => object(fieldpath) !== undefined;
    case '==':
      return (object) => object(fieldpath) === value;
    case '!=':
      return (object) => (object(fieldpath) ?? '') !== value;
    case '~=': {
      const matches = patterns?.compile(value) ?? (() => false);
      return (object) => matches(object(fieldpath) ?? '');
    }
  }
}

type Re2Module = Awaited<ReturnType<typeof loadRe2>>;
/** re2js is large: it is loaded when the first pattern comes. */
const loadRe2 = () => import('re2js');

/** The patterns of one call, which share a budget of time. */
class Patterns {
  static async load(): Promise<Patterns> {
    return new Patterns(await loadRe2());
  }

  readonly #re2: Re2Module;
  #spentMs = 0;

  constructor(re2: Re2Module) {
    this.#re2 = re2;
  }

  compile(source: string): (value: string) => boolean {
    const started = performance.now();
    const pattern = this.#tryCompile(source);
    this.#spend(performance.now() - started, source);
    if (pattern === undefined) return () => false;
    const size = pattern.programSize();
    if (size > PATTERN_SIZE_MAX) {
      throw new OpError(
        'InvalidArgument',
        `filter pattern ${quote(source)}: compiles to ${size} instructions, at most ${PATTERN_SIZE_MAX}`,
      );
    }
    return (value) => {
      if (size * value.length < CHEAP) return pattern.test(value);
      const begun = performance.now();
      const matched = pattern.test(value);
      this.#spend(performance.now() - begun, source);
      return matched;
    };
  }

  #tryCompile(source: string): RE2JS | undefined {
    try {
      return this.#re2.RE2JS.compile(source);
    } catch (error) {
      if (error instanceof this.#re2.RE2JSException) return undefined;
      throw error;
    }
  }

  #spend(ms: number, source: string): void {
    this.#spentMs += ms;
    if (this.#spentMs > PATTERNS_BUDGET_MS) {
      throw new OpError(
        'InvalidArgument',
        `filter pattern ${quote(source)}: takes too long, simplify it`,
      );
    }
  }
}

/** @param fieldpath what follows `labels`; its parts are one key again: `labels.a.b` is the label `a.b`. */
const labelAt = (labels: Labels, fieldpath: readonly string[]): string | undefined =>
  labels.get(fieldpath.slice(1).join('.'));

export function adaptSnapshot(info: {
  readonly name: string;
  readonly parent: string;
  readonly kind: string;
  readonly labels: Labels;
}): Adaptor {
  return (fieldpath) => {
    const [field] = fieldpath;
    if (field === 'name') return info.name;
    if (field === 'parent') return info.parent;
    if (field === 'kind') return info.kind;
    return field === 'labels' ? labelAt(info.labels, fieldpath) : undefined;
  };
}

/** `size` can be asked for and matches nothing, as in containerd. */
export function adaptContent(info: { readonly digest: string; readonly labels: Labels }): Adaptor {
  return (fieldpath) => {
    const [field] = fieldpath;
    if (field === 'digest') return info.digest;
    return field === 'labels' ? labelAt(info.labels, fieldpath) : undefined;
  };
}

export function adaptStatus(status: { readonly ref: string }): Adaptor {
  return (fieldpath) => (fieldpath[0] === 'ref' ? status.ref : undefined);
}

export function adaptPlugin(plugin: { readonly type: string; readonly id: string }): Adaptor {
  return ([field]) => {
    if (field === 'type') return plugin.type;
    return field === 'id' ? plugin.id : undefined;
  };
}

export function adaptImage(image: {
  readonly name: string;
  readonly target: {
    readonly digest: string;
    readonly mediaType: string;
    readonly annotations: Labels;
  };
  readonly labels: Labels;
}): Adaptor {
  return (fieldpath) => {
    const [field, part] = fieldpath;
    if (field === 'name') return image.name;
    if (field === 'labels') return labelAt(image.labels, fieldpath);
    if (field === 'annotations') return labelAt(image.target.annotations, fieldpath);
    if (field !== 'target') return undefined;
    if (part === 'digest') return image.target.digest;
    return part === 'mediatype' ? image.target.mediaType : undefined;
  };
}

export function adaptLease(lease: { readonly id: string; readonly labels: Labels }): Adaptor {
  return (fieldpath) => {
    const [field] = fieldpath;
    if (field === 'id') return lease.id;
    return field === 'labels' ? labelAt(lease.labels, fieldpath) : undefined;
  };
}

export function adaptActivation(activation: {
  readonly name: string;
  readonly labels: Labels;
}): Adaptor {
  return (fieldpath) => {
    const [field] = fieldpath;
    if (field === 'name') return activation.name;
    return field === 'labels' ? labelAt(activation.labels, fieldpath) : undefined;
  };
}

export function adaptContainer(container: {
  readonly id: string;
  readonly image: string;
  readonly runtime: { readonly name: string };
  readonly labels: Labels;
}): Adaptor {
  return (fieldpath) => {
    const [field, part] = fieldpath;
    if (field === 'id') return container.id;
    if (field === 'image') return container.image;
    if (field === 'runtime') return part === 'name' ? container.runtime.name : undefined;
    return field === 'labels' ? labelAt(container.labels, fieldpath) : undefined;
  };
}

/** @param fieldOf of what happened: the value at the path behind `event` */
export function adaptEnvelope(
  envelope: { readonly namespace: string; readonly topic: string },
  fieldOf: Adaptor,
): Adaptor {
  return (fieldpath) => {
    const [field] = fieldpath;
    if (field === 'namespace') return envelope.namespace;
    if (field === 'topic') return envelope.topic;
    return field === 'event' ? fieldOf(fieldpath.slice(1)) : undefined;
  };
}
