/**
 * Where each key of a TOML text stands, so that an error about a value can name its line. The text is
 * one that a TOML parser has accepted already; what this scan does not see (keys inside an inline
 * table) gets the line of the nearest key around it.
 */
export class TomlLines {
  readonly #lines = new Map<string, number>();

  constructor(text: string) {
    let table: readonly string[] = [];
    for (const { line, content } of statements(text)) {
      const header = /^\s*\[\[?/.exec(content);
      const path = readKey(content, header ? header[0].length : 0);
      if (path.length === 0) continue;
      if (header) table = path;
      const full = header ? path : [...table, ...path];
      // A dotted key or header makes the tables on its way too; the first mention counts.
      for (let depth = 1; depth <= full.length; depth++) {
        const key = JSON.stringify(full.slice(0, depth));
        if (!this.#lines.has(key)) this.#lines.set(key, line);
      }
    }
  }

  /** The line, from 1, of the key at `path`, or of the nearest table around it; 1 when there is none. */
  lineOf(path: readonly string[]): number {
    for (let depth = path.length; depth > 0; depth--) {
      const line = this.#lines.get(JSON.stringify(path.slice(0, depth)));
      if (line !== undefined) return line;
    }
    return 1;
  }
}

/** The lines on which a key or a header can start: those inside long strings and arrays are left out. */
function* statements(text: string): Generator<{ line: number; content: string }> {
  let depth = 0;
  let longQuote = '';
  for (const [index, content] of text.split(/\r?\n/).entries()) {
    const isStart = depth === 0 && longQuote === '' && !/^\s*(#|$)/.test(content);
    if (isStart) yield { line: index + 1, content };
    const isHeader = isStart && /^\s*\[/.test(content);
    if (isHeader) continue;
    ({ depth, longQuote } = skipLine(content, depth, longQuote));
  }
}

const TOKEN = /"""|'''|"(?:[^"\\]|\\.)*"|'[^']*'|#.*$|[[\]{}]/g;

function skipLine(content: string, depthBefore: number, quoteBefore: string) {
  let depth = depthBefore;
  let longQuote = quoteBefore;
  let at = 0;
  for (;;) {
    if (longQuote !== '') {
      const end = content.indexOf(longQuote, at);
      if (end < 0) return { depth, longQuote };
      at = end + longQuote.length;
      longQuote = '';
    }
    TOKEN.lastIndex = at;
    const token = TOKEN.exec(content);
    if (token === null) return { depth, longQuote };
    const [text] = token;
    at = token.index + text.length;
    if (text === '"""' || text === "'''") longQuote = text;
    else if (text === '[' || text === '{') depth++;
    else if (text === ']' || text === '}') depth--;
  }
}

const PART = /\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*(\.?)/y;

function readKey(content: string, start: number): readonly string[] {
  const parts: string[] = [];
  PART.lastIndex = start;
  for (;;) {
    const part = PART.exec(content);
    if (part === null) return parts;
    const [, quoted, literal, bare, dot] = part;
    parts.push(literal ?? bare ?? unescapeKey(quoted ?? ''));
    if (dot !== '.') return parts;
  }
}

/** TOML's escapes in keys are JSON's, but for \UXXXXXXXX and \e, which then stay as they are written. */
function unescapeKey(quoted: string): string {
  try {
    return String(JSON.parse(`"${quoted}"`));
  } catch {
    return quoted;
  }
}
