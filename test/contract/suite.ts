import { test } from 'vitest';
import { isOpError, type ErrorCode } from '../../src/base/errors.ts';
import assert from 'node:assert/strict';

/** Behaviour that every implementation of a contract shows; a function's name is its title. */
export type Suite<Subject> = readonly ((subject: Subject) => Promise<void>)[];

/** Each test gets a subject of its own, which goes with it. */
export function runSuite<Subject>(
  implementation: string,
  suite: Suite<Subject>,
  open: () => Promise<{ readonly subject: Subject } & AsyncDisposable>,
): void {
  for (const behaviour of suite) {
    test(`${implementation}: ${sentence(behaviour.name)}`, async () => {
      await using opened = await open();
      await behaviour(opened.subject);
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
