import { OpError, quote } from '../base/errors.ts';
import type { ActiveMount, ListedMount } from './mount.ts';

/**
 * Fills in what only the mounts made before know: `{{ source N }}`, `{{ target N }}`, `{{ mount N }}` (where it
 * is mounted) and `{{ overlay N M }}` (where N to M are, as lowerdir takes them).
 * @param active the mounts that were made, by index
 * @throws OpError InvalidArgument for anything else in braces, and for a mount that is not among them
 * @see containerd, docs on the mount manager: these four, within Go's templates
 */
export function format(mount: ListedMount, active: readonly ActiveMount[]): ListedMount {
  const filled = (text: string): string =>
    text.replaceAll(/\{\{-?(?<action>.*?)-?\}\}/gs, (_, action: string) =>
      valueOf(action.trim(), active),
    );
  return {
    ...mount,
    source: filled(mount.source),
    target: filled(mount.target),
    options: mount.options.map(filled),
  };
}

function valueOf(action: string, active: readonly ActiveMount[]): string {
  const {
    name,
    first = '',
    last,
  } = /^(?:(?<name>source|target|mount) +(?<first>\d+))$/.exec(action)?.groups ??
  /^(?<name>overlay) +(?<first>\d+) +(?<last>\d+)$/.exec(action)?.groups ??
  {};
  const from = at(active, Number(first), action);
  switch (name) {
    case 'source':
      return from.source;
    case 'target':
      return from.target;
    case 'mount':
      return from.mountPoint;
    case 'overlay':
      at(active, Number(last), action);
      return range(Number(first), Number(last))
        .map((index) => at(active, index, action).mountPoint)
        .join(':');
    default:
      throw new OpError(
        'InvalidArgument',
        `template ${quote(`{{ ${action} }}`)}: use source, target or mount with an index, or overlay with two`,
      );
  }
}

function at(active: readonly ActiveMount[], index: number, action: string): ActiveMount {
  const found = active[index];
  if (found !== undefined) return found;
  throw new OpError(
    'InvalidArgument',
    `template ${quote(`{{ ${action} }}`)}: there are ${active.length} mounts before it`,
  );
}

const range = (first: number, last: number): readonly number[] =>
  Array.from({ length: Math.abs(last - first) + 1 }, (_, step) =>
    first <= last ? first + step : first - step,
  );
