/** Values beside a message; text from outside belongs here, never into the message. */
export type LogFields = Readonly<Record<string, unknown>>;

export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/**
 * One method per level, constant messages. `error`: someone must act; `warn`: may become that; `info`:
 * rare facts of the daemon's life; `debug`: per request. Logging never throws and never waits.
 */
export interface Log {
  error(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  debug(fields: LogFields, message: string): void;
  /** Whether debug lines are written: for callers whose fields cost something. */
  readonly isDebug: boolean;
}

/** For tests and tools that have nobody to tell. */
export const silentLog: Log = {
  error: () => undefined,
  warn: () => undefined,
  info: () => undefined,
  debug: () => undefined,
  isDebug: false,
};
