import { OpError } from '../../../base/errors.ts';
import type { CheckedConfig, CheckedSnapshotter } from '../programs.ts';

/** The families of containerd whose configs differ. */
export const CONTAINERD_VERSIONS = ['1.6', '1.7', '2.x'] as const;
export type ContainerdVersion = (typeof CONTAINERD_VERSIONS)[number];

export interface DropInRequest {
  readonly config: CheckedConfig;
  readonly version: ContainerdVersion;
  /** Our content store too, in the place of containerd's own. */
  readonly content: boolean;
  /** Our layer engine too, asked before containerd's own. From 1.7 on. */
  readonly differ: boolean;
  /** As Node names it. */
  readonly architecture: string;
  readonly capabilitiesOf: (snapshotter: CheckedSnapshotter) => readonly string[];
}

/** What containerd calls our content store; one table of its config holds all proxy plugins. */
export const CONTENT_PLUGIN_NAME = 'ballast-content';
/** And our layer engine. */
export const DIFFER_PLUGIN_NAME = 'ballast-differ';
const BUILT_IN_DIFFER = 'walking';
const DIFF_SERVICE = 'io.containerd.service.v1.diff-service';
const BUILT_IN_CONTENT = 'io.containerd.content.v1.content';
const TRANSFER = 'io.containerd.transfer.v1.local';

export const CONTENT_WARNING =
  'with our content store containerd no longer finds the blobs and images that it has now; docs/operations.md says how to move them first, and how to go back';

/** The file for containerd's `imports`, with what to do with it as comments. */
export function dropIn(request: DropInRequest): string {
  return [...introduction(request), '', ...pluginLines(request), ''].join('\n');
}

/** A template for k3s, which writes its own config around it. */
export function k3sTemplate(request: DropInRequest): string {
  const { version, config } = request;
  const file = version === '2.x' ? 'config-v3.toml.tmpl' : 'config.toml.tmpl';
  const [name] = config.snapshotters.keys();
  return [
    `# ballast as proxy plugin of k3s' containerd ${version}; by \`ballast config print k3s --version ${version}\`.`,
    `# Save as /var/lib/rancher/k3s/agent/etc/containerd/${file}; where there is one already, merge the two.`,
    ...(name === undefined
      ? []
      : [
          `# Start k3s with --snapshotter ${name}: the base template hands that to Kubernetes' side.`,
        ]),
    ...contentComment(request),
    ...disabledLines(request),
    '{{ template "base" . }}',
    '',
    ...proxyLines(request),
    '',
  ].join('\n');
}

/** Docker's daemon.json. It has no comments: dockerAdvice says what to do. */
export function dockerConfig(config: CheckedConfig): string {
  const [name] = config.snapshotters.keys();
  if (name === undefined) throw nothingToPrint('docker needs a snapshotter');
  return `${JSON.stringify(
    {
      containerd: config.containerdAddress ?? '/run/containerd/containerd.sock',
      features: { 'containerd-snapshotter': true },
      'storage-driver': name,
    },
    undefined,
    2,
  )}\n`;
}

export const dockerAdvice = (version: ContainerdVersion | undefined): string =>
  [
    'Merge this into /etc/docker/daemon.json (Docker 25 or newer) and restart docker. Images that docker',
    'has now stay where they are and are hidden until the two keys are taken away again.',
    'The containerd that docker uses must know ballast first: put what',
    `  ballast config print containerd --version ${version ?? '1.6|1.7|2.x'}`,
    'prints into its config and restart it.',
    '',
  ].join('\n');

function introduction(request: DropInRequest): readonly string[] {
  const { version, config } = request;
  const [name] = config.snapshotters.keys();
  return [
    `# ballast as proxy plugin of containerd ${version}; by \`ballast config print containerd --version ${version}\`.`,
    '#',
    '# Save as /etc/containerd/conf.d/ballast.toml. In /etc/containerd/config.toml, above its first [table]:',
    `#   version = ${formatOf(version)}`,
    '#   imports = ["/etc/containerd/conf.d/*.toml"]',
    '# Then start ballast, then restart containerd: `systemctl restart containerd`; containers keep running.',
    '#',
    '# Where config.toml has such keys already:',
    '#   imports             add the path to its list.',
    '#   [proxy_plugins.…]   of another name stay as they are; one of the same name is replaced by the one here.',
    ...(request.content
      ? ['#   disabled_plugins    stays: containerd joins the lists of all files.']
      : []),
    ...transferComment(version),
    ...differComment(request),
    ...criComment(version, name),
    ...contentComment(request),
  ];
}

function transferComment(version: ContainerdVersion): readonly string[] {
  if (version === '1.6') return [];
  const table = `#   [plugins."${TRANSFER}"]`;
  return version === '1.7'
    ? [
        `${table}   is dropped from config.toml as a whole, as 1.7 takes`,
        '#                       a table of plugins from one file only: move its other keys here.',
      ]
    : [
        `${table}   is merged key by key, but its unpack_config`,
        '#                       is replaced by the one here: copy its entries.',
      ];
}

function differComment({ version, differ }: DropInRequest): readonly string[] {
  if (!differ) return [];
  const table = `#   [plugins."${DIFF_SERVICE}"]`;
  return version === '1.7'
    ? [`${table}   is dropped from config.toml as a whole, as above.`]
    : [`${table}   is merged key by key; its default is replaced.`];
}

/** In 1.x it must not be in the drop-in: the table there would replace all of config.toml's. */
function criComment(version: ContainerdVersion, name: string | undefined): readonly string[] {
  if (name === undefined) return [];
  const isNew = version === '2.x';
  return [
    '#',
    '# `ctr`, `nerdctl` and other clients take it by name: --snapshotter ' + name,
    `# For Kubernetes (CRI), in ${isNew ? 'config.toml or here' : 'config.toml itself, not here (1.x would drop the rest of its cri table)'}:`,
    isNew
      ? '#   [plugins."io.containerd.cri.v1.images"]'
      : '#   [plugins."io.containerd.grpc.v1.cri".containerd]',
    `#     snapshotter = ${toml(name)}`,
  ];
}

const contentComment = ({ content }: DropInRequest): readonly string[] =>
  content ? ['#', `# Mind: ${CONTENT_WARNING}.`] : [];

const pluginLines = (request: DropInRequest): readonly string[] => [
  `version = ${formatOf(request.version)}`,
  ...disabledLines(request),
  '',
  ...proxyLines(request),
];

/** Exactly one content plugin may exist; a key of the top level stands before the first table. */
const disabledLines = ({ content }: DropInRequest): readonly string[] =>
  content ? [`disabled_plugins = [${toml(BUILT_IN_CONTENT)}]`] : [];

function proxyLines(request: DropInRequest): readonly string[] {
  const { config, content, version } = request;
  const snapshotters = [...config.snapshotters.values()];
  if (snapshotters.length === 0 && !content) {
    throw nothingToPrint(
      'add a [snapshotter.NAME] table to it, or ask for the content store by --content',
    );
  }
  const { socket: address } = config.plugin;
  const lines: string[] = [];
  for (const snapshotter of snapshotters) {
    const { name, root } = snapshotter;
    const capabilities = version === '1.6' ? [] : request.capabilitiesOf(snapshotter);
    lines.push(...proxyTable(name, 'snapshot', address, root, capabilities));
  }
  if (content) {
    const root = `${config.root}/content`;
    lines.push(...proxyTable(CONTENT_PLUGIN_NAME, 'content', address, root, []));
  }
  return [...lines, ...differLines(request), ...unpackLines(request)];
}

/** The first differ that does not answer "unimplemented" counts. */
function differLines({ differ, version, config }: DropInRequest): readonly string[] {
  if (!differ) return [];
  if (version === '1.6') {
    throw new OpError('InvalidArgument', '--differ: containerd 1.6 knows no differs but its own');
  }
  if (config.containerdAddress === undefined) {
    throw new OpError(
      'FailedPrecondition',
      '--differ: set containerd_address in the config: the layers that Diff makes (`docker commit`) have to be put into containerd',
    );
  }
  return [
    `[proxy_plugins.${toml(DIFFER_PLUGIN_NAME)}]`,
    '  type = "diff"',
    `  address = ${toml(config.plugin.socket)}`,
    '',
    `[plugins.${toml(DIFF_SERVICE)}]`,
    `  default = [${toml(DIFFER_PLUGIN_NAME)}, ${toml(BUILT_IN_DIFFER)}]`,
    '',
  ];
}

function proxyTable(
  name: string,
  type: string,
  address: string,
  root: string,
  capabilities: readonly string[],
): readonly string[] {
  const key = toml(name);
  return [
    `[proxy_plugins.${key}]`,
    `  type = ${toml(type)}`,
    `  address = ${toml(address)}`,
    ...(capabilities.length === 0
      ? []
      : [`  capabilities = [${capabilities.map(toml).join(', ')}]`]),
    `  [proxy_plugins.${key}.exports]`,
    `    root = ${toml(root)}`,
    '',
  ];
}

/**
 * What the transfer service (`ctr image pull`, `docker pull`) may unpack with: a list given here replaces
 * containerd's, so its own default stands first again. Its first entry serves whoever names none. With two
 * differs to choose from, an entry that names none is skipped.
 */
function unpackLines(request: DropInRequest): readonly string[] {
  const { version, config, differ, architecture } = request;
  if (version === '1.6') return [];
  const names = [...config.snapshotters.keys()];
  if (names.length === 0) return [];
  return ['overlayfs', ...names].flatMap((name) => [
    `[[plugins.${toml(TRANSFER)}.unpack_config]]`,
    `  platform = ${toml(platformOf(architecture))}`,
    `  snapshotter = ${toml(name)}`,
    ...(differ
      ? [`  differ = ${toml(name === 'overlayfs' ? BUILT_IN_DIFFER : DIFFER_PLUGIN_NAME)}`]
      : []),
  ]);
}

/** containerd 2.x reads both formats; 1.x refuses the new one. */
const formatOf = (version: ContainerdVersion): 2 | 3 => (version === '2.x' ? 3 : 2);

const PLATFORMS: ReadonlyMap<string, string> = new Map([
  ['x64', 'linux/amd64'],
  ['arm', 'linux/arm/v7'],
  ['ia32', 'linux/386'],
]);

/** Node's name of an architecture as OCI's platform. */
const platformOf = (architecture: string): string =>
  PLATFORMS.get(architecture) ?? `linux/${architecture}`;

/** A string as TOML writes it; what JSON escapes, TOML does in the same way. */
const toml = (text: string): string => JSON.stringify(text);

const nothingToPrint = (remedy: string): OpError =>
  new OpError('FailedPrecondition', `the config has no snapshotter: ${remedy}`);
