import type { Platform } from './transfer.ts';

/** Of an image, as its index or config has it. */
export interface ImagePlatform extends Platform {
  readonly osVersion: string;
  readonly osFeatures: readonly string[];
}

const ARCHITECTURES: Readonly<Record<string, string>> = {
  i386: '386',
  x86_64: 'amd64',
  'x86-64': 'amd64',
  aarch64: 'arm64',
  armhf: 'arm',
  armel: 'arm',
};

/** What we are ourselves, in Go's words. */
export const ownPlatform = (): Platform => {
  const names: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386' };
  return normalize({
    os: process.platform,
    architecture: names[process.arch] ?? process.arch,
    variant: '',
  });
};

/** One name for what has several. @see containerd, platforms, "Normalize" */
export function normalize<T extends Platform>(platform: T): T {
  const os = platform.os === '' ? process.platform : platform.os.toLowerCase();
  const given = platform.architecture.toLowerCase();
  const architecture = Object.hasOwn(ARCHITECTURES, given) ? ARCHITECTURES[given] : given;
  const variant = variantOf(given, platform.variant.toLowerCase());
  return { ...platform, os: os === 'macos' ? 'darwin' : os, architecture, variant };
}

function variantOf(architecture: string, variant: string): string {
  switch (architecture) {
    case 'i386':
      return '';
    case 'x86_64':
    case 'x86-64':
    case 'amd64':
      return variant === 'v1' ? '' : variant;
    case 'aarch64':
    case 'arm64':
      if (['8', 'v8', 'v8.0'].includes(variant)) return '';
      return ['9', '9.0', 'v9.0'].includes(variant) ? 'v9' : variant;
    case 'armhf':
      return 'v7';
    case 'armel':
      return 'v6';
    case 'arm':
      if (variant === '' || variant === '7') return 'v7';
      return ['5', '6', '8'].includes(variant) ? `v${variant}` : variant;
    default:
      return variant;
  }
}

/** Which platforms are wanted, the best first. */
export class PlatformOrder {
  readonly #wanted: readonly Platform[];

  constructor(wanted: readonly Platform[]) {
    this.#wanted = wanted.map(normalize);
  }

  /** Nothing in particular: all match. */
  get isOpen(): boolean {
    return this.#wanted.length === 0;
  }

  matches(platform: ImagePlatform): boolean {
    return this.isOpen || this.#rank(platform) < this.#wanted.length;
  }

  /** The best first; without a platform last. The order of equals stays. */
  sorted<T extends { readonly platform: ImagePlatform | undefined }>(all: readonly T[]): T[] {
    const rank = ({ platform }: T): number =>
      platform === undefined ? Infinity : this.#rank(platform);
    const ranked = all.map((each) => ({ each, rank: rank(each) }));
    return ranked
      .toSorted((a, b) => (a.rank < b.rank ? -1 : Number(a.rank > b.rank)))
      .map(({ each }) => each);
  }

  /** As many as are wanted: none of them. */
  #rank(platform: ImagePlatform): number {
    const { os, architecture, variant, osFeatures } = normalize(platform);
    const at = this.#wanted.findIndex(
      (one) =>
        one.os === os &&
        one.architecture === architecture &&
        one.variant === variant &&
        osFeatures.length === 0,
    );
    return at < 0 ? this.#wanted.length : at;
  }
}
