import type {
  ExportOptions,
  ImageDestination,
  Platform,
  Progress,
} from '../../transfer/transfer.ts';
import type { containerd } from '../gen/wire.js';
import { labelsFromWire, labelsToWire } from './labels.ts';

type Wire = typeof containerd.types.transfer;
type WireStore = InstanceType<Wire['ImageStore']>;
type WireExport = InstanceType<Wire['ImageExportStream']>;
type WirePlatform = containerd.types.Platform.$Properties;
type WireProgress = containerd.types.transfer.Progress.$Properties;

export const destinationFromWire = (store: WireStore): ImageDestination => ({
  name: store.name,
  labels: labelsFromWire(store.labels),
  platforms: store.platforms.map(platformFromWire),
  allMetadata: store.allMetadata,
  manifestLimit: store.manifestLimit,
  references: store.extraReferences.map((reference) => ({
    name: reference.name ?? '',
    isPrefix: reference.isPrefix ?? false,
    allowOverwrite: reference.allowOverwrite ?? false,
    addDigest: reference.addDigest ?? false,
    skipNamedDigest: reference.skipNamedDigest ?? false,
  })),
  unpacks: store.unpacks.map(({ snapshotter }) => snapshotter ?? ''),
});

export const exportOptionsFromWire = (stream: WireExport): ExportOptions => ({
  platforms: stream.platforms.map(platformFromWire),
  allPlatforms: stream.allPlatforms,
  skipDockerManifest: stream.skipCompatibilityManifest,
  skipNonDistributable: stream.skipNonDistributable,
});

const platformFromWire = ({ os, architecture, variant }: WirePlatform): Platform => ({
  os: os ?? '',
  architecture: architecture ?? '',
  variant: variant ?? '',
});

export function progressToWire({ event, name, target }: Progress): WireProgress {
  if (target === undefined) return { event, name };
  const { mediaType, digest, size, annotations } = target;
  return { event, name, desc: { mediaType, digest, size, annotations: labelsToWire(annotations) } };
}
