import { fstatSync } from 'node:fs';
import { isatty } from 'node:tty';
import { isOpError } from '../base/errors.ts';
import type { Log, LogFields, LogLevel } from '../base/log.ts';
import type { LogConfig, LogFormat } from './config.ts';
import type { Environment } from './notify.ts';

const STDERR = 2;
/** Severities by weight, with the priorities that the journal reads from `<N>`. @see sd-daemon(3) */
const SEVERITY = { error: 3, warn: 4, info: 6, debug: 7 } as const satisfies Record<
  LogLevel,
  number
>;
/** Lines that nobody takes are kept up to this many bytes, then the newest are dropped. */
const PENDING_BYTES_MAX = 1024 * 1024;

/**
 * The log on standard error. To a pipe, a socket or the journal Node writes without waiting and without
 * libuv's threads, which a disk that hangs may hold: what the reader does not take is kept up to a
 * bound, then dropped, and the daemon goes on.
 */
export function openLog(config: LogConfig, environment: Environment): Log {
  const { stderr } = process;
  // A reader that went away (EPIPE) must not end the daemon; there is nobody left to tell.
  stderr.on('error', () => undefined);
  const format = formatOf(config.format, environment);
  return createLog(config.level, format, (line) => {
    if (stderr.writableLength < PENDING_BYTES_MAX) stderr.write(line);
  });
}

/** A log whose lines go to `write`. */
export function createLog(
  level: LogLevel,
  format: Exclude<LogFormat, 'auto'>,
  write: (line: string) => void,
): Log {
  const at = (severity: LogLevel) => (fields: LogFields, message: string) => {
    if (SEVERITY[severity] <= SEVERITY[level])
      write(`${render(format, severity, fields, message)}\n`);
  };
  return {
    error: at('error'),
    warn: at('warn'),
    info: at('info'),
    debug: at('debug'),
    isDebug: level === 'debug',
  };
}

function formatOf(format: LogFormat, environment: Environment): Exclude<LogFormat, 'auto'> {
  if (format !== 'auto') return format;
  if (isJournal(environment['JOURNAL_STREAM'])) return 'journal';
  return isatty(STDERR) ? 'text' : 'json';
}

/** JOURNAL_STREAM is inherited by children whose stderr goes elsewhere; so it names device and inode. */
function isJournal(stream: string | undefined): boolean {
  if (stream === undefined) return false;
  try {
    const { dev, ino } = fstatSync(STDERR);
    return stream === `${dev}:${ino}`;
  } catch {
    return false;
  }
}

function render(format: LogFormat, level: LogLevel, fields: LogFields, message: string): string {
  const time = new Date().toISOString();
  if (format === 'json') return stringify({ time, level, message, ...plain(fields) });
  const pairs = Object.entries(plain(fields)).map(([key, value]) => ` ${key}=${pairValue(value)}`);
  const text = `${message}${pairs.join('')}`;
  return format === 'journal' ? `<${SEVERITY[level]}>${text}` : `${time} ${level} ${text}`;
}

const plain = (fields: LogFields): LogFields =>
  Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, plainValue(value)]));

/** Errors have no own enumerable keys; a defect's stack is what one looks for, ours say all in words. */
function plainValue(value: unknown): unknown {
  if (isOpError(value)) return `${value.code}: ${value.message}`;
  if (value instanceof Error) return value.stack ?? String(value);
  return typeof value === 'bigint' ? String(value) : value;
}

/** Quoted unless it is a plain word: text from outside can neither end a line nor look like a field. */
function pairValue(value: unknown): string {
  const text = typeof value === 'string' ? value : stringify(value);
  return /^[\w./:@%+-]+$/.test(text) ? text : JSON.stringify(text);
}

function stringify(value: unknown): string {
  try {
    const text = JSON.stringify(value, (_, one: unknown) =>
      typeof one === 'bigint' ? `${one}` : one,
    );
    return text ?? 'undefined';
  } catch (error) {
    return JSON.stringify({ unprintable: String(error) });
  }
}
