import { containerd, google } from '../gen/wire.js';
import { unary } from '../service.ts';
import type { Service } from '../service.ts';

const { VersionResponse } = containerd.services.version.v1;

export interface VersionInfo {
  readonly version: string;
  /** The commit it was built from, '' if unknown. */
  readonly revision: string;
}

export function versionService({ version, revision }: VersionInfo): Service {
  return {
    name: 'containerd.services.version.v1.Version',
    methods: {
      Version: unary(google.protobuf.Empty, VersionResponse, async () => ({ version, revision })),
    },
  };
}
