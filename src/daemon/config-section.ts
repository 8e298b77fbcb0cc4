import { isAbsolute, normalize } from 'node:path';

import { OpError, quote } from '../base/errors.ts';
/** How messages name the value at a path of keys: `FILE:LINE: a.b`, or the flag it came from. */
export type NameOfValue = (path: readonly string[]) => string;

/** sun_path holds 108 bytes, the last of them a NUL. unix(7) */
const SOCKET_PATH_BYTES_MAX = 107;

/** One table of the config file: typed reads whose errors name file, line, key, value and what to do. */
export class ConfigSection {
  readonly #nameOf: NameOfValue;
  readonly #path: readonly string[];
  readonly #values: ReadonlyMap<string, unknown>;

  constructor(nameOf: NameOfValue, path: readonly string[], table: Readonly<object>) {
    this.#nameOf = nameOf;
    this.#path = path;
    this.#values = new Map(Object.entries(table).filter(([, value]) => value !== undefined));
  }

  keys(): readonly string[] {
    return [...this.#values.keys()];
  }

  /** What a driver reads itself: everything but `names`. */
  without(names: readonly string[]): Readonly<Record<string, unknown>> {
    const rest = [...this.#values].filter(([key]) => !names.includes(key));
    return Object.fromEntries(rest);
  }

  refuseUnknown(known: readonly string[]): void {
    for (const key of this.#values.keys()) {
      if (known.includes(key)) continue;
      const guess = nearest(key, known);
      const hint =
        guess === undefined ? `known here: ${known.join(', ')}` : `did you mean ${guess}?`;
      throw this.fail(key, `is no key that ballast knows; ${hint}`);
    }
  }

  /** The table at `key`, empty when absent. */
  section(key: string): ConfigSection {
    const value = this.#values.get(key) ?? {};
    if (typeof value !== 'object' || Array.isArray(value) || value instanceof Date) {
      throw this.fail(key, `must be a table: write [${[...this.#path, key].join('.')}]`);
    }
    return new ConfigSection(this.#nameOf, [...this.#path, key], value);
  }

  string(key: string): string | undefined {
    const value = this.#values.get(key);
    if (value === undefined || typeof value === 'string') return value;
    throw this.fail(key, `must be a string, is ${show(value)}`);
  }

  choice<T extends string>(key: string, choices: readonly T[], preset: T): T {
    const value = this.string(key) ?? preset;
    const choice = choices.find((one) => one === value);
    if (choice !== undefined) return choice;
    throw this.fail(key, `is ${quote(value)}, must be one of ${choices.join(', ')}`);
  }

  /** A uid or gid. */
  id(key: string, preset: number): number {
    const value = this.#values.get(key) ?? preset;
    // 2^32 - 1 means "leave as it is" to chown(2).
    if (Number.isInteger(value) && Number(value) >= 0 && Number(value) < 0xffff_ffff) {
      return Number(value);
    }
    throw this.fail(key, `must be a whole number from 0 to 4294967294, is ${show(value)}`);
  }

  /** How many of something. */
  count(key: string, preset: number, least: 0 | 1 = 1): number {
    const value = this.#values.get(key) ?? preset;
    if (Number.isSafeInteger(value) && Number(value) >= least) return Number(value);
    throw this.fail(key, `must be a whole number from ${least} to 2^53 - 1, is ${show(value)}`);
  }

  /** A part of a whole, of which half is the most. */
  part(key: string, preset: number): number {
    const value = this.#values.get(key) ?? preset;
    if (typeof value === 'number' && value >= 0 && value <= 0.5) return value;
    throw this.fail(key, `must be a number from 0 to 0.5, is ${show(value)}`);
  }

  /** A string such as "100ms" or "2s", in milliseconds. */
  duration(key: string, presetMs: number): number {
    const value = this.#values.get(key);
    if (value === undefined) return presetMs;
    const { count, unit = '' } =
      typeof value === 'string'
        ? (/^(?<count>\d{1,9})(?<unit>ms|s|m|h)$/.exec(value)?.groups ?? {})
        : {};
    const unitMs = UNITS_MS.get(unit);
    if (count !== undefined && unitMs !== undefined) return Number(count) * unitMs;
    throw this.fail(key, `must be a duration in quotes such as "100ms" or "2s", is ${show(value)}`);
  }

  /** Permission bits: a string of octal digits, as a bare 660 or 440 would be read as decimal. */
  mode(key: string, preset: number): number {
    const value = this.#values.get(key);
    if (value === undefined) return preset;
    if (typeof value === 'string' && /^0?[0-7]{3}$/.test(value)) return Number.parseInt(value, 8);
    throw this.fail(key, `must be octal digits in quotes such as "0660", is ${show(value)}`);
  }

  /** An absolute path of a folder; overlay's option syntax gives a meaning to three characters. */
  directory(key: string, preset: string): string {
    const path = this.#absolute(key, this.string(key) ?? preset);
    const special = /[:,\\]/.exec(path);
    if (special !== null) {
      throw this.fail(
        key,
        `is ${quote(path)}: ${quote(special[0])} has a meaning in overlay mount options, choose a path without it`,
      );
    }
    if (path === '/') throw this.fail(key, 'is "/": choose a folder of its own');
    return path;
  }

  /** The absolute path of a unix socket. */
  socket(key: string): string | undefined {
    const value = this.string(key);
    if (value === undefined) return undefined;
    const path = this.#absolute(key, value);
    const bytes = Buffer.byteLength(path);
    if (bytes > SOCKET_PATH_BYTES_MAX) {
      throw this.fail(
        key,
        `is ${bytes} bytes long: a socket's path has at most ${SOCKET_PATH_BYTES_MAX}, choose a shorter one`,
      );
    }
    return path;
  }

  /** The error about the value at `key`, or about the table itself: `problem` says value and remedy. */
  fail(key: string | undefined, problem: string, cause?: unknown): OpError {
    const path = key === undefined ? this.#path : [...this.#path, key];
    return new OpError(
      'InvalidArgument',
      `${this.#nameOf(path)} ${problem}`,
      cause === undefined ? undefined : { cause },
    );
  }

  #absolute(key: string, path: string): string {
    if (!isAbsolute(path)) {
      throw this.fail(key, `is ${quote(path)}, must be an absolute path: begin it with "/"`);
    }
    // oxlint-disable-next-line no-control-regex -- a NUL or newline in a path is what is looked for
    if (/[\u0000-\u001f\u007f]/.test(path)) {
      throw this.fail(key, `is ${quote(path)}: control characters cannot be part of it`);
    }
    const plain = normalize(path).replace(/(?<=.)\/$/, '');
    return plain;
  }
}

const UNITS_MS: ReadonlyMap<string, number> = new Map([
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
]);

const show = (value: unknown): string =>
  quote(typeof value === 'bigint' ? `${value}` : String(value));

/** The known word that is closest to what was typed, if it is close at all. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Insertions, deletions and replacements of one letter that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      const replace = (row[j] ?? 0) + (a[i] === b[j] ? 0 : 1);
      next.push(Math.min(replace, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
