import assert from 'node:assert/strict';

/** Log lines of this level and above tell that something went wrong. (pino's numbers) */
const ERROR_LEVEL = 50;

/**
 * What the daemon wrote before it ended holds one line that says what is wrong, and no stack trace.
 * Log lines of lesser weight may stand beside it.
 */
export function assertOneClearLine(stderr: string, says: RegExp): void {
  const lines = stderr.split('\n').filter((line) => line !== '');
  const errors = lines.filter((line) => weight(line) >= ERROR_LEVEL);
  assert.equal(errors.length, 1, `not one line of error but ${errors.length}:\n${stderr}`);
  assert.match(errors[0] ?? '', says);
  assert.doesNotMatch(stderr, /^\s+at /m, 'a stack trace');
}

function weight(line: string): number {
  try {
    const entry: unknown = JSON.parse(line);
    if (typeof entry === 'object' && entry !== null && 'level' in entry) {
      if (typeof entry.level === 'number') return entry.level;
      return entry.level === 'error' || entry.level === 'fatal' ? ERROR_LEVEL : 0;
    }
  } catch {
    // Not a log line: it is there because something went wrong.
  }
  return ERROR_LEVEL;
}
