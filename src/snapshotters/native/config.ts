import { checkTable } from '../config-table.ts';
import type { ConfigTable } from '../driver.ts';

/** The driver has no options of its own. @throws OpError InvalidArgument naming the key */
export function checkNativeConfig(table: ConfigTable): void {
  checkTable('native', table, {});
}
