import { OpError } from '../../base/errors.ts';
import type { Cancellation } from './cancellation.ts';

export function copyTree(from: string, to: string, cancellation: Cancellation): void {
  cancellation.check();
  throw new OpError('Unimplemented', `copying ${from} to ${to}`);
}
