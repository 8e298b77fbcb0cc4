import { OpError, quote } from './errors.ts';

type Operator = 'present' | '==' | '!=' | '~=';

/** One condition of a filter; all must hold. */
export interface Selector {
  readonly fieldpath: readonly string[];
  readonly operator: Operator;
  readonly value: string;
}

type Token =
  | { readonly type: 'field' | 'value' | 'operator' | 'separator'; readonly text: string }
  | { readonly type: 'quoted'; readonly text: string; readonly mark: string }
  | { readonly type: 'end' };

const WHITE_SPACE = /^\p{White_Space}$/u;
/** What Go calls graphic, without the spaces among it, and without the comma. */
const VALUE_CHARACTER = /^[\p{L}\p{M}\p{N}\p{P}\p{S}]$/u;
const FIELD_CHARACTER = /^[A-Za-z0-9_]$/;
const OPERATOR_CHARACTER = /^[=!~]$/;

/**
 * Reads one filter; an empty one has no selectors.
 *
 *     filter   := "" | selector ("," selector)*
 *     selector := field ("." field)* [("==" | "!=" | "~=") value]
 *     field    := [A-Za-z0-9_]+ | "…"
 *     value    := "…" | graphic characters without "," or space
 *
 * For `~=`, /…/ and |…| quote too. White space is skipped before a token, except before the comma,
 * the dot and the end. A bare value cannot start with a quote, a separator or an operator's character.
 * @throws OpError InvalidArgument
 * @see containerd 2.1, pkg/filters
 */
export function parseFilter(filter: string): readonly Selector[] {
  return filter === '' ? [] : new Parser(filter).selectors();
}

class Parser {
  readonly #filter: string;
  readonly #characters: readonly string[];
  #position = 0;
  /** After an operator, and until the next separator, a run of characters is a value. */
  #expectsValue = false;

  constructor(filter: string) {
    this.#filter = filter;
    this.#characters = Array.from(filter);
  }

  selectors(): readonly Selector[] {
    const selectors = [this.#selector()];
    while (this.#next() === ',') {
      this.#token();
      selectors.push(this.#selector());
    }
    if (this.#next() !== undefined) throw this.#error('a comma or the end');
    return selectors;
  }

  #selector(): Selector {
    const fieldpath = [this.#field()];
    while (this.#next() === '.') {
      this.#token();
      fieldpath.push(this.#field());
    }
    const next = this.#next();
    if (next === undefined || next === ',') return { fieldpath, operator: 'present', value: '' };
    const operator = this.#operator();
    return { fieldpath, operator, value: this.#value(operator) };
  }

  #field(): string {
    const token = this.#token();
    if (token.type === 'field') return token.text;
    if (token.type === 'quoted' && token.mark === '"') return token.text;
    throw this.#error('a field name, or one in double quotes');
  }

  #operator(): '==' | '!=' | '~=' {
    const token = this.#token();
    if (token.type === 'operator') {
      if (token.text === '==' || token.text === '!=' || token.text === '~=') return token.text;
    }
    throw this.#error('one of == != ~=');
  }

  #value(operator: Operator): string {
    const token = this.#token();
    if (token.type === 'value' || token.type === 'field') return token.text;
    if (token.type === 'quoted' && (token.mark === '"' || operator === '~=')) return token.text;
    throw this.#error('a value, or one in double quotes');
  }

  #next(): string | undefined {
    return this.#characters[this.#position];
  }

  #token(): Token {
    while (WHITE_SPACE.test(this.#next() ?? '')) this.#position++;
    const first = this.#next();
    if (first === undefined) return { type: 'end' };
    if (first === '"' || first === '/' || first === '|') {
      this.#position++;
      return { type: 'quoted', text: this.#unquote(first), mark: first };
    }
    if (first === ',' || first === '.') {
      this.#position++;
      this.#expectsValue = false;
      return { type: 'separator', text: first };
    }
    if (OPERATOR_CHARACTER.test(first)) {
      this.#expectsValue = true;
      return { type: 'operator', text: this.#run(OPERATOR_CHARACTER) };
    }
    if (this.#expectsValue) {
      this.#expectsValue = false;
      return { type: 'value', text: this.#legal(this.#take(1)) + this.#run(VALUE_CHARACTER, ',') };
    }
    if (FIELD_CHARACTER.test(first)) return { type: 'field', text: this.#run(FIELD_CHARACTER) };
    throw this.#error('a field name, an operator or a value');
  }

  #run(allowed: RegExp, but = ''): string {
    const start = this.#position;
    for (;;) {
      const next = this.#next();
      if (next === undefined || next === but || !allowed.test(next)) break;
      this.#legal(next);
      this.#position++;
    }
    return this.#characters.slice(start, this.#position).join('');
  }

  #take(count: number): string {
    const text = this.#characters.slice(this.#position, this.#position + count).join('');
    this.#position += count;
    return text;
  }

  /** Go's scanner takes NUL and the replacement character, which broken UTF-8 becomes, for errors. */
  #legal(character: string): string {
    if (character === '\0' || character === '\u{fffd}')
      throw this.#error('valid UTF-8 without NUL');
    return character;
  }

  /** Go's string literals. `\x` and octal escapes are bytes, so that text is put together as bytes. */
  #unquote(mark: string): string {
    const bytes: Buffer[] = [];
    for (;;) {
      const character = this.#next();
      if (character === undefined || character === '\n') throw this.#error(`a closing ${mark}`);
      this.#position++;
      if (character === mark) return textOf(Buffer.concat(bytes));
      bytes.push(character === '\\' ? this.#escape(mark) : Buffer.from(this.#legal(character)));
    }
  }

  #escape(mark: string): Buffer {
    const kind = this.#take(1);
    const simple = SIMPLE_ESCAPES.get(kind);
    if (simple !== undefined) return Buffer.from(simple);
    if (kind === mark) return Buffer.from(mark);
    if (/^[0-7]$/.test(kind)) {
      return Buffer.from([this.#number(kind + this.#take(2), /^[0-7]{3}$/, 8, 0xff)]);
    }
    if (kind === 'x') return Buffer.from([this.#number(this.#take(2), /^[0-9a-f]{2}$/i, 16, 0xff)]);
    if (kind !== 'u' && kind !== 'U') throw this.#error('a known escape sequence');
    const digits = kind === 'u' ? /^[0-9a-f]{4}$/i : /^[0-9a-f]{8}$/i;
    const code = this.#number(this.#take(kind === 'u' ? 4 : 8), digits, 16, 0x10ffff);
    // As in Go, half a surrogate pair becomes the replacement character.
    return Buffer.from(String.fromCodePoint(code));
  }

  #number(digits: string, shape: RegExp, base: number, max: number): number {
    const value = shape.test(digits) ? Number.parseInt(digits, base) : Number.NaN;
    if (!(value <= max)) throw this.#error('a numeric escape sequence in its range');
    return value;
  }

  #error(expected: string): OpError {
    return new OpError(
      'InvalidArgument',
      `filter ${quote(this.#filter)}: expected ${expected} near character ${this.#position}`,
    );
  }
}

const SIMPLE_ESCAPES: ReadonlyMap<string, string> = new Map([
  ['a', '\x07'],
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
  ['v', '\v'],
  ['\\', '\\'],
]);

/** Equal to no text that comes over the wire, and no pattern that matches any. */
const NOT_TEXT = '\ud800';
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function textOf(bytes: Buffer): string {
  try {
    return utf8.decode(bytes);
  } catch {
    return NOT_TEXT;
  }
}
