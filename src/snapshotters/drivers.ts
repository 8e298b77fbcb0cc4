import { btrfs } from './btrfs/driver.ts';
import type { DriverFactory } from './driver.ts';
import { native } from './native/driver.ts';
import { overlay } from './overlay/driver.ts';

/** Every driver there is. To add one: a folder beside these, and a line here. */
export const drivers: readonly DriverFactory[] = [overlay, native, btrfs];
