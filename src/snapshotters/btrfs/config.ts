import { checkTable, type KeyCheck } from '../config-table.ts';
import type { ConfigTable } from '../driver.ts';

export interface BtrfsConfig {
  /** Switch simple quotas on where quotas are off. */
  readonly switchesQuotaOn: boolean;
  /** Refuse a snapshot whose size limit cannot be kept. */
  readonly enforcesMaxSize: boolean;
}

const isQuota: KeyCheck = {
  expected: '"on", or left out to leave quotas as they are',
  holds: (value) => value === 'on',
};
const isMaxSize: KeyCheck = {
  expected: '"hint" or "enforce"',
  holds: (value) => value === 'hint' || value === 'enforce',
};

/** @throws OpError InvalidArgument naming the key */
export function parseBtrfsConfig(table: ConfigTable): BtrfsConfig {
  checkTable('btrfs', table, { quota: isQuota, max_size: isMaxSize });
  return {
    switchesQuotaOn: table['quota'] === 'on',
    enforcesMaxSize: table['max_size'] === 'enforce',
  };
}
