import { OpError } from '../../../base/errors.ts';
import { collect } from '../check/collect.ts';
import { compare, type Finding } from '../check/compare.ts';
import type { CheckedConfig, Programs } from '../programs.ts';
import { loadPluginConfig } from './plugin-config.ts';

export interface CheckRequest {
  readonly containerd?: string | undefined;
  readonly address?: string | undefined;
  readonly config?: string | undefined;
}

/** @throws OpError FailedPrecondition when there is a fault; Unavailable when one of both does not answer */
export async function check(request: CheckRequest, programs: Programs): Promise<void> {
  const { containerd, ballast } = await collect(...socketsOf(request, programs));
  programs.out(
    `containerd ${containerd.version}, ballast ${ballast.version} on ${ballast.socket}\n`,
  );
  const findings = compare(containerd, ballast);
  for (const finding of findings) programs.out(`${line(finding)}\n`);
  const faults = findings.filter(({ kind }) => kind === 'fault').length;
  if (faults > 0)
    throw new OpError(
      'FailedPrecondition',
      `check: ${faults} ${faults === 1 ? 'fault' : 'faults'}, see above`,
    );
}

/** Flags say it all, or the config fills in what they leave out. */
function socketsOf(request: CheckRequest, programs: Programs): [string, string] {
  let config: CheckedConfig | undefined;
  const fromConfig = (): CheckedConfig =>
    (config ??= loadPluginConfig(programs, request.config ?? programs.defaultConfigFile));
  const address = request.address ?? fromConfig().plugin.socket;
  const containerd = request.containerd ?? fromConfig().containerdAddress;
  if (containerd === undefined) {
    throw new OpError(
      'InvalidArgument',
      'check: say where containerd listens, by --containerd SOCKET or as containerd_address in the config',
    );
  }
  return [containerd, address];
}

const MARKS = { fine: 'ok   ', note: 'note ', fault: 'FAULT' } as const satisfies Record<
  Finding['kind'],
  string
>;

const line = ({ kind, text }: Finding): string => `${MARKS[kind]} ${text}`;
