import { expect, test } from 'vitest';
import { normalize, PlatformOrder, type ImagePlatform } from './platforms.ts';

const platform = (text: string, osFeatures: readonly string[] = []): ImagePlatform => {
  const [os = '', architecture = '', variant = ''] = text.split('/');
  return { os, architecture, variant, osVersion: '', osFeatures };
};

test('a platform has one name', () => {
  for (const [given, one] of [
    ['Linux/x86_64', 'linux/amd64/'],
    ['linux/amd64/v1', 'linux/amd64/'],
    ['linux/amd64/v3', 'linux/amd64/v3'],
    ['linux/aarch64/8', 'linux/arm64/'],
    ['linux/arm64/9.0', 'linux/arm64/v9'],
    ['linux/arm', 'linux/arm/v7'],
    ['linux/arm/6', 'linux/arm/v6'],
    ['linux/armel', 'linux/arm/v6'],
    ['linux/armhf', 'linux/arm/v7'],
    ['linux/i386/any', 'linux/386/'],
    ['macos/arm64', 'darwin/arm64/'],
    ['/constructor', 'linux/constructor/'],
  ] as const) {
    const { os, architecture, variant } = normalize(platform(given));
    expect([given, `${os}/${architecture}/${variant}`]).toEqual([given, one]);
  }
});

test('what is wanted comes first, in its order; what has no platform last', () => {
  const order = new PlatformOrder([platform('linux/arm64'), platform('linux/x86_64')]);
  const all = ['linux/386', 'linux/amd64', 'none', 'linux/arm64/v8', 'linux/amd64/v1'];
  const sorted = order.sorted(
    all.map((name) => ({ name, platform: name === 'none' ? undefined : platform(name) })),
  );
  expect(sorted.map(({ name }) => name)).toEqual([
    'linux/arm64/v8',
    'linux/amd64',
    'linux/amd64/v1',
    'linux/386',
    'none',
  ]);
  expect(all.filter((name) => order.matches(platform(name)))).toEqual([
    'linux/amd64',
    'linux/arm64/v8',
    'linux/amd64/v1',
  ]);
});

test('an image that needs features of its system is not for one without', () => {
  const order = new PlatformOrder([platform('linux/amd64')]);
  expect(order.matches(platform('linux/amd64', ['win32k']))).toBe(false);
  expect(new PlatformOrder([]).matches(platform('any/thing'))).toBe(true);
});
