import { OpError } from '../base/errors.ts';
import type { ConfigTable } from './driver.ts';

/** How one key of a driver's table is checked: what it must be, for the message, and whether it is. */
export interface KeyCheck {
  readonly expected: string;
  readonly holds: (value: unknown) => boolean;
}

export const isBoolean: KeyCheck = {
  expected: 'true or false',
  holds: (value) => typeof value === 'boolean',
};
export const isListOfStrings: KeyCheck = {
  expected: 'a list of strings',
  holds: (value) => Array.isArray(value) && value.every((item) => typeof item === 'string'),
};

/** @throws OpError InvalidArgument naming the unknown or wrong key */
export function checkTable(
  driver: string,
  table: ConfigTable,
  keys: Readonly<Record<string, KeyCheck>>,
): void {
  for (const [key, value] of Object.entries(table)) {
    const check = Object.hasOwn(keys, key) ? keys[key] : undefined;
    if (check === undefined) {
      const known = Object.keys(keys).join(', ') || 'none';
      throw new OpError(
        'InvalidArgument',
        `${key}: the driver ${driver} has no such option; it has ${known}`,
      );
    }
    if (!check.holds(value)) {
      throw new OpError(
        'InvalidArgument',
        `${key} = ${JSON.stringify(value)}: must be ${check.expected}`,
      );
    }
  }
}
