import { afterAll, test } from 'vitest';
import { isOpError, type ErrorCode } from '../../src/base/errors.ts';
import assert from 'node:assert/strict';

/** Behaviour that every implementation of a contract shows; a function's name is its title. */
export type Suite<Subject> = readonly ((subject: Subject) => Promise<void>)[];

export interface Implementation<Subject> {
  open(): Promise<{ readonly subject: Subject } & AsyncDisposable>;
  /** Removes all that a test left, which must be possible. */
  empty(subject: Subject): Promise<void>;
}

/** Runs the suite over one subject, emptied in between; after a failure over a new one. */
export function runSuite<Subject>(
  title: string,
  suite: Suite<Subject>,
  implementation: Implementation<Subject>,
): void {
  let opened: Awaited<ReturnType<typeof implementation.open>> | undefined;
  const close = async (): Promise<void> => {
    const closing = opened;
    opened = undefined;
    await closing?.[Symbol.asyncDispose]();
  };
  afterAll(close);
  for (const behaviour of suite) {
    test(`${title}: ${sentence(behaviour.name)}`, async () => {
      opened ??= await implementation.open();
      try {
        await behaviour(opened.subject);
        await implementation.empty(opened.subject);
      } catch (error) {
        await close();
        throw error;
      }
    });
  }
}

const sentence = (name: string): string =>
  name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);

/** It is refused with this code, and the message says what about. */
export async function refuses(
  code: ErrorCode,
  request: Promise<unknown>,
  says: RegExp = /./,
): Promise<void> {
  try {
    await request;
  } catch (error) {
    assert.ok(isOpError(error), `no OpError: ${String(error)}`);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, says);
    return;
  }
  assert.fail(`no ${code}`);
}
