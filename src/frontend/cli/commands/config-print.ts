import { OpError } from '../../../base/errors.ts';
import type { Programs } from '../programs.ts';
import {
  CONTAINERD_VERSIONS,
  CONTENT_WARNING,
  type ContainerdVersion,
  dockerAdvice,
  dockerConfig,
  dropIn,
  k3sTemplate,
} from '../render/containerd-config.ts';
import { loadPluginConfig } from './plugin-config.ts';

export interface PrintRequest {
  readonly target: string;
  readonly version?: ContainerdVersion | undefined;
  readonly content: boolean;
  readonly differ: boolean;
  readonly config: string;
}

/** Prints the file to standard output, and what a file cannot say to standard error. */
export function printConfig(request: PrintRequest, programs: Programs): void {
  const { target, version, content, differ } = request;
  const config = loadPluginConfig(programs, request.config);
  if (target === 'docker') {
    programs.out(dockerConfig(config));
    programs.err(dockerAdvice(version));
    return;
  }
  if (version === undefined) {
    throw new OpError(
      'InvalidArgument',
      `config print ${target}: say for which containerd, by --version ${CONTAINERD_VERSIONS.join('|')} (\`containerd --version\` tells)`,
    );
  }
  const { capabilitiesOf } = programs;
  const architecture = process.arch;
  const wanted = { config, version, content, differ, architecture, capabilitiesOf };
  programs.out(target === 'k3s' ? k3sTemplate(wanted) : dropIn(wanted));
  if (content) programs.err(`Mind: ${CONTENT_WARNING}.\n`);
}
