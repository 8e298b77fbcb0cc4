import { OpError } from '../../../base/errors.ts';
import type { CheckedConfig, Programs } from '../programs.ts';

/**
 * The config of a daemon that serves a containerd.
 * @throws OpError as loadConfig; FailedPrecondition for one that serves alone
 */
export function loadPluginConfig(programs: Programs, file: string): CheckedConfig {
  const config = programs.loadConfig(file);
  if (config.standalone === undefined) return config;
  throw new OpError(
    'FailedPrecondition',
    `${file}: has a [standalone] socket, which no containerd uses: name the config of a plugin socket`,
  );
}
