import { expect, test } from 'vitest';

import { OpError } from '../base/errors.ts';
import { TAR_LIMITS } from '../diff/apply/limits.ts';
import { GC_DEFAULTS } from '../gc/scheduler.ts';
import type { DriverFactory } from '../snapshotters/driver.ts';
import { configFor, configFromFlags, parseConfig } from './config.ts';

/** Stands for drivers.ts: what a driver does is not asked here, only which keys it takes. */
const driver = (name: string, keys: readonly string[]): DriverFactory => ({
  name,
  checkConfig(table) {
    for (const key of Object.keys(table)) {
      if (!keys.includes(key)) throw new OpError('InvalidArgument', `unknown key ${key}`);
    }
  },
  capabilities: () => [],
  open: () => Promise.reject(new OpError('Unimplemented', 'not here')),
});
const drivers = [driver('overlay', ['mount_options']), driver('native', [])];

const parsed = (text: string) => parseConfig(text, 'ballast.toml', drivers);
function problemOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof OpError) return `${error.code}: ${error.message}`;
    throw error;
  }
  throw new Error('nothing was refused');
}
const refused = (text: string) => problemOf(() => parsed(text));

test('a config with everything is read into a typed value', () => {
  const config = parsed(`
root = "/srv/ballast/"
containerd_address = "/run/containerd/containerd.sock"
[plugin]
socket = "/run/ballast/other.sock"
mode = "0600"
uid = 7
gid = 8
[snapshotter.ballast-overlay]
driver = "overlay"
durability = "metadata"
mount_options = ["volatile"]
[snapshotter.ballast-native]
driver = "native"
root = "/mnt/other/ballast-native"
[layers]
entries_max = 1000
file_bytes_max = 1_000_000
verify = "all"
[log]
level = "debug"
format = "json"
`);
  expect(config).toEqual({
    root: '/srv/ballast',
    containerdAddress: '/run/containerd/containerd.sock',
    plugin: { socket: '/run/ballast/other.sock', mode: 0o600, uid: 7, gid: 8 },
    gc: GC_DEFAULTS,
    layers: {
      limits: { ...TAR_LIMITS, entriesMax: 1000, fileBytesMax: 1_000_000 },
      verify: 'all',
    },
    standalone: undefined,
    anyName: false,
    byFlags: false,
    log: { level: 'debug', format: 'json' },
    snapshotters: new Map([
      [
        'ballast-overlay',
        {
          name: 'ballast-overlay',
          driver: 'overlay',
          durability: 'metadata',
          root: '/srv/ballast/snapshotters/ballast-overlay',
          table: { mount_options: ['volatile'] },
        },
      ],
      [
        'ballast-native',
        {
          name: 'ballast-native',
          driver: 'native',
          durability: 'full',
          root: '/mnt/other/ballast-native',
          table: {},
        },
      ],
    ]),
  });
});

test('an empty file is a config of defaults', () => {
  expect(parsed('')).toEqual({
    root: '/var/lib/ballast',
    containerdAddress: undefined,
    plugin: { socket: '/run/ballast/plugin.sock', mode: 0o660, uid: 0, gid: 0 },
    gc: GC_DEFAULTS,
    layers: { limits: TAR_LIMITS, verify: 'foreign' },
    snapshotters: new Map(),
    standalone: undefined,
    anyName: false,
    byFlags: false,
    log: { level: 'info', format: 'auto' },
  });
});

test('when to collect is read as containerd reads it', () => {
  const { gc } = parsed(`
[standalone]
[gc]
pause_threshold = 0.1
deletion_threshold = 5
mutation_threshold = 0
schedule_delay = "2s"
startup_delay = "0ms"
`);
  expect(gc).toEqual({
    pauseThreshold: 0.1,
    deletionThreshold: 5,
    mutationThreshold: 0,
    scheduleDelayMs: 2000,
    startupDelayMs: 0,
  });
});

test.for<[string, string, RegExp]>([
  ['collecting behind a plugin socket', '[gc]\n', /toml:1: gc is for a standalone socket/],
  [
    'more than half of the time',
    '[standalone]\n[gc]\npause_threshold = 0.6',
    /toml:3: gc\.pause_threshold must be a number from 0 to 0\.5, is "0\.6"/,
  ],
  [
    'a duration without a unit',
    '[standalone]\n[gc]\nschedule_delay = 5',
    /toml:3: gc\.schedule_delay must be a duration in quotes/,
  ],
  ['a text that is no TOML', 'root = "/x"\nroot = \n', /ballast\.toml:2:\d+: this is no TOML/],
  ['a key that is misspelt', '\nrooot = "/x"', /toml:2: rooot .*did you mean root\?/],
  [
    'a table that is misspelt',
    '[snapshoter.x]\ndriver="native"',
    /toml:1: .*did you mean snapshotter/,
  ],
  ['a key of Object.prototype', '[plugin]\n__proto__ = 1', /toml:2: plugin\.__proto__ is no key/],
  [
    'both kinds of socket',
    '[plugin]\n[standalone]\n',
    /toml:2: standalone cannot share its stores with a plugin socket/,
  ],
  [
    "containerd's address beside a standalone socket",
    'containerd_address = "/c.sock"\n[standalone]\n',
    /toml:1: containerd_address is for a plugin socket/,
  ],
  ['a relative root', 'root = "var"', /toml:1: root is "var", must be an absolute path/],
  ['a colon in a root', 'root = "/a:b"', /":" has a meaning in overlay/],
  [
    'a comma in a root',
    '[snapshotter.x]\ndriver="native"\nroot="/a,b"',
    /toml:3: snapshotter\.x\.root/,
  ],
  ['a number as root', '# here\nroot = 5', /toml:2: root must be a string, is "5"/],
  ['a mode in decimal', '[plugin]\nmode = 440', /toml:2: plugin\.mode must be octal digits/],
  ['no entries in a layer', '[layers]\nentries_max = 0', /toml:2: layers\.entries_max must be/],
  ['a uid below zero', '[plugin]\nuid = -1', /toml:2: plugin\.uid/],
  ['a socket path that is too long', `[plugin]\nsocket = "/${'s'.repeat(107)}"`, /has at most 107/],
  ['a snapshotter that is no table', 'snapshotter = 3', /must be a table: write \[snapshotter\]/],
  ['no driver', '\n[snapshotter.x]\n', /toml:2: snapshotter\.x names no driver/],
  [
    'an unknown driver',
    '[snapshotter.x]\ndriver = "overlayfs"',
    /toml:2: .*did you mean overlay\?/,
  ],
  [
    'a name of containerd',
    '[snapshotter.overlayfs]\ndriver = "overlay"',
    /toml:1: .*"ballast-overlayfs"/,
  ],
  [
    'a name that is no identifier',
    '[snapshotter."a/b"]\ndriver = "native"',
    /toml:1: .*containerd refuses/,
  ],
  [
    'an unknown durability',
    '[snapshotter.x]\ndriver = "native"\ndurability = "none"',
    /toml:3: .*full, metadata/,
  ],
  [
    "a key that the driver doesn't know",
    '[snapshotter.x]\ndriver = "native"\n\nspeed = 1',
    /toml:4: snapshotter\.x\.speed/,
  ],
  ['an unknown log level', '[log]\nlevel = "loud"', /toml:2: log\.level is "loud"/],
])('%s is refused by naming its line', ([, text, problem]) => {
  expect(refused(text)).toMatch(/^InvalidArgument: /);
  expect(refused(text)).toMatch(problem);
});

test('two snapshotters may neither share nor nest their roots', () => {
  const two = (root: string) => `
[snapshotter.a]
driver = "native"
root = "/srv/a"
[snapshotter.b]
driver = "native"
root = "${root}"`;
  expect(refused(two('/srv/a'))).toMatch(/toml:7: snapshotter\.b\.root .*snapshotter\.a/);
  expect(refused(two('/srv/a/b'))).toMatch(/snapshotter\.a/);
  expect(refused(two('/srv'))).toMatch(/snapshotter\.a/);
  expect(refused(two('/srv/x/../a/'))).toMatch(/snapshotter\.a/);
  expect(parsed(two('/srv/ab')).snapshotters.size).toBe(2);
});

test("a snapshotter's root may not lie among the daemon's own files", () => {
  const at = (root: string) =>
    `root = "/srv/b"\n[snapshotter.a]\ndriver="native"\nroot = "${root}"`;
  expect(refused(at('/srv/b'))).toMatch(/toml:4: .*among the daemon's own files/);
  expect(refused(at('/srv'))).toMatch(/among the daemon's own files/);
  expect(refused(at('/srv/b/blobs'))).toMatch(/among the daemon's own files/);
  expect(refused(at('/srv/b/snapshotters'))).toMatch(/choose a folder below it/);
  expect(parsed(at('/srv/b/snapshotters/z')).snapshotters.size).toBe(1);
});

test('flags make a config of one driver that answers any name', () => {
  const config = configFromFlags({ socket: '/tmp/s', root: '/tmp/r' }, drivers);
  expect(config.anyName).toBe(true);
  expect([...config.snapshotters.values()]).toEqual([
    {
      name: 'ballast-overlay',
      driver: 'overlay',
      durability: 'full',
      root: '/tmp/r/snapshotters/ballast-overlay',
      table: {},
    },
  ]);
  expect(config.plugin.socket).toBe('/tmp/s');
  const other = configFromFlags(
    { socket: '/tmp/s', root: '/tmp/r', snapshotter: 'native', durability: 'metadata' },
    drivers,
  );
  expect([...other.snapshotters.values()]).toMatchObject([
    { driver: 'native', durability: 'metadata' },
  ]);
});

test('a wrong flag is refused by its name', () => {
  const flags = { socket: '/tmp/s', root: '/tmp/r' };
  const refusedFlags = (more: object) =>
    problemOf(() => configFromFlags({ ...flags, ...more }, drivers));
  expect(refusedFlags({ snapshotter: 'zfs' })).toMatch(/: --snapshotter is "zfs", this build has/);
  expect(refusedFlags({ durability: 'half' })).toMatch(/: --durability is "half"/);
  expect(refusedFlags({ root: '/a:b' })).toMatch(/: --root is/);
});

test('flags about logs win over the file', () => {
  const request = {
    flags: { socket: '/tmp/s', root: '/tmp/r' },
    log: { level: 'debug', format: undefined },
  };
  expect(configFor(request, drivers).log).toEqual({ level: 'debug', format: 'auto' });
  const wrong = { ...request, log: { level: undefined, format: 'xml' } };
  expect(problemOf(() => configFor(wrong, drivers))).toMatch(/: --log-format is "xml"/);
});
