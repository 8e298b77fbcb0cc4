import type { Target } from '../images/image.ts';
import { ociReferenceName } from './references.ts';
import type { ImageDestination, ImageReference } from './transfer.ts';

/** What an archive calls an image: its whole name, and its tag. */
export const IMAGE_NAME = 'io.containerd.image.name';
export const REF_NAME = 'org.opencontainers.image.ref.name';

/** The names of what is stored itself. */
export const ownNames = (
  { digest }: Target,
  { name, references }: ImageDestination,
): readonly string[] => [
  ...(name === '' ? [] : [name]),
  ...references
    .filter(({ isPrefix }) => !isPrefix)
    .map((reference) => (reference.addDigest ? `${reference.name}@${digest}` : reference.name)),
];

/** The names of one that an archive's index has: what its annotations say, by the prefixes. */
export function namesWithin(target: Target, { references }: ImageDestination): readonly string[] {
  return references
    .filter(({ isPrefix }) => isPrefix)
    .flatMap((prefix) => {
      const byDigest = `${prefix.name}@${target.digest}`;
      const name = annotatedName(target, prefix);
      if (name === '') return prefix.addDigest ? [byDigest] : [];
      return prefix.addDigest && !prefix.skipNamedDigest ? [name, byDigest] : [name];
    });
}

export const nameAnnotations = (name: string): readonly (readonly [string, string])[] => [
  [IMAGE_NAME, name],
  [REF_NAME, ociReferenceName(name)],
];

function annotatedName({ annotations }: Target, prefix: ImageReference): string {
  const whole = annotations.get(IMAGE_NAME) ?? '';
  if (whole !== '') return prefixed(whole, prefix) === whole ? whole : '';
  const name = annotations.get(REF_NAME) ?? '';
  return name === '' ? '' : prefixed(name, prefix);
}

/** A tag joins the prefix; a whole name must have it, or may be another. */
function prefixed(name: string, { name: prefix, allowOverwrite }: ImageReference): string {
  if (prefix === '') return '';
  if (!/[/:@]/.test(name)) return `${prefix}:${name}`;
  return allowOverwrite || isBelow(name, prefix) ? name : '';
}

const isBelow = (name: string, prefix: string): boolean =>
  name.startsWith(prefix) && ['', '/', ':', '@'].includes(name.charAt(prefix.length));
