import { checkTable, isBoolean, isListOfStrings } from '../config-table.ts';
import type { ConfigTable } from '../driver.ts';

/** The options of containerd's own overlay snapshotter, with its names. */
export interface OverlayConfig {
  /** Added to every overlay mount, never to a bind mount. */
  readonly mountOptions: readonly string[];
  /** Show the upper directory as the label `containerd.io/snapshot/overlay.upperdir`. */
  readonly upperdirLabel: boolean;
  /** Remove answers when the directory is gone, not before. */
  readonly syncRemove: boolean;
  /** Let containerd chown a copy of each layer where mounts cannot map ids. */
  readonly slowChown: boolean;
}

/** @throws OpError InvalidArgument naming the key */
export function parseOverlayConfig(table: ConfigTable): OverlayConfig {
  checkTable('overlay', table, {
    mount_options: isListOfStrings,
    upperdir_label: isBoolean,
    sync_remove: isBoolean,
    slow_chown: isBoolean,
  });
  const options = table['mount_options'];
  return {
    mountOptions: Array.isArray(options) ? options.map(String) : [],
    upperdirLabel: table['upperdir_label'] === true,
    syncRemove: table['sync_remove'] === true,
    slowChown: table['slow_chown'] === true,
  };
}
