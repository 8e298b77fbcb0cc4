// Lists of mounts, and what Activate makes of each, as containerd's source says.
import type { ErrorCode } from '../../src/base/errors.ts';
import type { containerd } from '../../src/grpc/gen/wire.js';

export type Mount = containerd.types.Mount.$Properties;

export const bind = (source: string, ...options: readonly string[]): Mount => ({
  type: 'bind',
  source,
  options: ['rbind', ...options],
});

export interface Row {
  readonly what: string;
  readonly mounts: readonly Mount[];
  readonly temporary?: boolean;
  /** Of how many mounts, and what is left to the client; or the error. */
  readonly answer: ErrorCode | { readonly active: number; readonly system: readonly Mount[] };
  /** What is seen below the last mount made. */
  readonly files?: readonly string[];
}

/**
 * Over the folders and files in `root`.
 * @param folder of the activation
 */
export const rows = (root: string, folder: string): readonly Row[] => [
  { what: 'nothing to mount', mounts: [], answer: 'Unimplemented' },
  { what: 'what the client can mount', mounts: [bind(`${root}/a`)], answer: 'Unimplemented' },
  {
    what: 'a transformer nobody knows',
    mounts: [{ type: 'other/bind', source: `${root}/a` }],
    answer: 'Unimplemented',
  },
  {
    what: 'mkfs, which would need a program',
    mounts: [{ type: 'mkfs/ext4', source: `${root}/new`, options: ['X-containerd.mkfs.size=8M'] }],
    temporary: true,
    answer: 'Unimplemented',
  },
  {
    what: 'all by us',
    mounts: [bind(`${root}/a`)],
    temporary: true,
    answer: {
      active: 1,
      system: [{ type: 'bind', source: `${folder}/0`, target: '', options: ['rbind'] }],
    },
    files: ['one'],
  },
  {
    what: 'a format on the first alone: nothing is mounted',
    mounts: [{ type: 'format/bind', source: `${root}/a`, target: '/t', options: ['ro'] }],
    answer: {
      active: 0,
      system: [{ type: 'bind', source: `${root}/a`, target: '/t', options: ['ro'] }],
    },
  },
  ...overlays(root, folder),
  ...devices(root, folder),
  ...refused(root),
];

const overlays = (root: string, folder: string): readonly Row[] => [
  {
    what: 'an overlay of what was mounted, for the client',
    mounts: [
      bind(`${root}/a`, 'ro'),
      bind(`${root}/b`),
      {
        type: 'format/overlay',
        source: '{{ source 0 }}',
        target: '{{target 0}}',
        options: ['lowerdir={{ overlay 1 0 }}', 'x={{ mount 1 }}', '{{- overlay 0 1 -}}'],
      },
      { type: 'tmpfs', source: '{{ as it is }}', target: 'below', options: ['size=1m'] },
    ],
    answer: {
      active: 2,
      system: [
        {
          type: 'overlay',
          source: `${root}/a`,
          target: '',
          options: [`lowerdir=${folder}/1:${folder}/0`, `x=${folder}/1`, `${folder}/0:${folder}/1`],
        },
        { type: 'tmpfs', source: '{{ as it is }}', target: 'below', options: ['size=1m'] },
      ],
    },
    files: ['two'],
  },
  {
    what: 'an overlay of what was mounted, by us, in directories made for it',
    mounts: [
      bind(`${root}/a`),
      bind(`${root}/b`),
      {
        type: 'format/mkdir/overlay',
        source: 'overlay',
        options: [
          `X-containerd.mkdir.path=${root}/made`,
          `X-containerd.mkdir.path=${root}/made/upper:0751`,
          `X-containerd.mkdir.path=${root}/made/work:0700:7:8`,
          'lowerdir={{ overlay 0 1 }}',
          `upperdir=${root}/made/upper`,
          `workdir=${root}/made/work`,
        ],
      },
    ],
    temporary: true,
    answer: {
      active: 3,
      system: [{ type: 'bind', source: `${folder}/2`, target: '', options: ['rbind'] }],
    },
    files: ['one', 'two'],
  },
];

const devices = (root: string, folder: string): readonly Row[] => [
  {
    what: 'a file system in a file, on a device',
    mounts: [
      { type: 'loop', source: `${root}/image` },
      { type: 'format/ext4', source: '{{ mount 0 }}' },
    ],
    temporary: true,
    answer: {
      active: 2,
      system: [{ type: 'bind', source: `${folder}/1`, target: '', options: ['rbind'] }],
    },
    files: ['lost+found'],
  },
  {
    what: 'a device alone',
    mounts: [{ type: 'loop', source: `${root}/image`, options: ['ro'] }],
    answer: { active: 1, system: [] },
  },
  {
    what: 'a file system in a file, by the option of mount(8)',
    mounts: [{ type: 'ext4', source: `${root}/image`, options: ['loop', 'ro', 'noload'] }],
    temporary: true,
    answer: {
      active: 1,
      system: [{ type: 'bind', source: `${folder}/0`, target: '', options: ['rbind'] }],
    },
    files: ['lost+found'],
  },
];

/** After a first mount, which has to go again. */
function refused(root: string): readonly Row[] {
  const table: readonly (readonly [what: string, mount: Mount, answer: ErrorCode])[] = [
    ['a source that is not there', bind(`${root}/missing`), 'NotFound'],
    ['a type that the kernel does not know', { type: 'nosuch' }, 'FailedPrecondition'],
    ['a file for a device', { type: 'ext4', source: `${root}/image` }, 'FailedPrecondition'],
    ['a device for what is not there', { type: 'loop', source: `${root}/none` }, 'NotFound'],
    ['a target', { ...bind(`${root}/a`), target: 'sub' }, 'InvalidArgument'],
    ['mkfs behind another', { type: 'format/mkfs/ext4' }, 'Unimplemented'],
    ['an index too high', { type: 'format/bind', source: '{{ mount 1 }}' }, 'InvalidArgument'],
    ['a range too wide', { type: 'format/x', source: '{{overlay 0 7}}' }, 'InvalidArgument'],
    ['more of Go’s templates', { type: 'format/x', source: '{{ len "x" }}' }, 'InvalidArgument'],
    ['a NUL', bind(`${root}/a\0`), 'InvalidArgument'],
    ['more options than a page', { type: 'tmpfs', options: ['x'.repeat(4096)] }, 'InvalidArgument'],
    ...directories(root),
  ];
  return table.map(([what, mount, answer]) => ({
    what,
    mounts: [bind(`${root}/a`), { source: 'x', ...mount }],
    temporary: true,
    answer,
  }));
}

function directories(root: string): readonly (readonly [string, Mount, ErrorCode])[] {
  const table: readonly (readonly [path: string, answer: ErrorCode])[] = [
    ['/elsewhere', 'Unimplemented'],
    [`${root}/../x`, 'Unimplemented'],
    [`${root}/out/x`, 'InvalidArgument'],
    [`${root}/missing/x`, 'NotFound'],
    [`${root}/image`, 'FailedPrecondition'],
    [`${root}/a:0700`, 'FailedPrecondition'],
    [`${root}/x:999`, 'InvalidArgument'],
    [`${root}/x:0700:1`, 'InvalidArgument'],
  ];
  return table.map(([path, answer]) => [
    `a directory at ${path.replace(root, '')}`,
    { type: 'mkdir/tmpfs', options: [`X-containerd.mkdir.path=${path}`] },
    answer,
  ]);
}
