// Every command of `ctr` that touches storage, as lines for sh: run on ballast and on a containerd, each in a
// folder of its own. A command that a release does not have says so on both sides.
import type { Release } from '../interop/containerd.ts';
import type { SmallImage } from './small-image.ts';

export interface Section {
  readonly what: string;
  readonly lines: readonly string[];
}

const NO_DIGEST = `sha256:${'0'.repeat(64)}`;
const NO_ROOT = "-e '/^\\.\\/$/d' -e '/ \\.\\/$/d'";
const LONG = `long=${'x'.repeat(4096)}`;

/** In this order: what one section makes, others look at. */
export function sections(release: Release, image: SmallImage): readonly Section[] {
  const imports = `ctr images import ${release.local.join(' ')}`;
  const local = release.name === '2.x' ? '--local' : '';
  return [
    server,
    namespaces,
    { what: 'import', lines: [`${imports} ../image.tar`] },
    images(image, local),
    content(image),
    ...['overlayfs', 'native', 'btrfs'].map((snapshotter) => ({
      what: `snapshots of ${snapshotter}`,
      lines: [
        `${imports} --snapshotter ${snapshotter} ../image.tar`,
        ...snapshots(image).map((line) =>
          line.replaceAll('ctr snapshots', `ctr snapshots --snapshotter ${snapshotter}`),
        ),
        ...mounts(image, snapshotter),
      ],
    })),
    leases,
    containers(image),
    removals(image),
  ];
}

/** What each says of itself: the same columns, and of what both have the same. */
const server: Section = {
  what: 'the server',
  lines: [
    "ctr version | sed 's/:.*/:/'",
    "ctr info | sed 's/: [^{]*/: /'",
    'ctr deprecations list',
    'ctr deprecations list --format json',
    'ctr plugins ls | head -n 1',
    "ctr plugins ls | grep -E 'v1 +(content|overlayfs|native|btrfs) ' | grep -v grpc | sort",
    'ctr plugins ls -q | grep -x -e overlayfs -e native -e btrfs | sort',
    "ctr plugins ls -d id==overlayfs | grep -E '^(Type|ID|Platforms|Exports)|root' | sed 's/  .*//'",
    'ctr plugins ls -d type==nothing',
    'ctr plugins ls id==',
  ],
};

const namespaces: Section = {
  what: 'namespaces',
  lines: [
    'ctr namespaces ls',
    'ctr namespaces create',
    'ctr namespaces create other a=b c=d',
    'ctr namespaces create other',
    'ctr namespaces create not/valid',
    `ctr namespaces create long ${LONG}`,
    'ctr namespaces ls',
    'ctr namespaces label other a=changed c=',
    'ctr namespaces label unmade x=y',
    'ctr namespaces label',
    'ctr namespaces ls',
    'ctr namespaces rm other',
    'ctr namespaces rm unmade missing',
    'ctr namespaces rm missing',
    'ctr namespaces c short && ctr ns rm short',
    'ctr namespaces ls -q',
  ],
};

const images = ({ reference }: SmallImage, local: string): Section => ({
  what: 'images',
  lines: [
    'ctr images ls',
    'ctr images ls -q',
    'ctr images ls name==nothing',
    'ctr images ls name==',
    'ctr images check',
    'ctr images check -q',
    'ctr images check --snapshotter native',
    'ctr images check name==nothing',
    `ctr images tag ${local} ${reference} example.org/other:1`,
    `ctr images tag ${local} ${reference} example.org/other:1`,
    `ctr images tag ${local} --force ${reference} example.org/other:1`,
    `ctr images tag ${local} ${reference} example.org/a:1 example.org/b:1`,
    `ctr images tag ${local} missing example.org/other:2`,
    'ctr images label example.org/other:1 a=b c=d',
    'ctr images label example.org/other:1 a=',
    'ctr images label --replace-all example.org/other:1 e=f',
    `ctr images label example.org/other:1 ${LONG}`,
    'ctr images label missing a=b',
    'ctr images ls',
    'ctr images ls -q labels.e==f',
    'ctr images usage example.org/other:1',
    'ctr images usage --snapshotter native example.org/other:1',
    'ctr images usage missing',
    // Labels come in the random order of Go's maps.
    `ctr images inspect ${reference} | sort`,
    `ctr images inspect --content ${reference} | sort`,
    'ctr images inspect missing',
    `ctr images convert --uncompress ${reference} example.org/plain:1`,
    'ctr images convert missing example.org/plain:2',
    'ctr images ls',
    'ctr images rm example.org/other:1 example.org/plain:1',
    'ctr images rm missing',
    'ctr images prune',
    'ctr images ls -q',
    'ctr namespaces ls',
  ],
});

const content = ({ layers: [layer = ''], manifest }: SmallImage): Section => ({
  what: 'content',
  lines: [
    'ctr content ls',
    `ctr content ls -q digest==${layer}`,
    'ctr content ls -q digest==',
    `ctr content get ${manifest}`,
    `ctr content get ${NO_DIGEST}`,
    'ctr content get nothing',
    'ctr content active',
    `ctr content label ${layer} x=y z=w`,
    `ctr content label ${layer} x= z=`,
    `ctr content label ${NO_DIGEST} x=y`,
    'printf bytes | ctr content ingest ref',
    'printf bytes | ctr content ingest ref',
    'printf bytes | ctr content ingest --expected-size 4 short',
    `printf bytes | ctr content ingest --expected-digest ${NO_DIGEST} wrong`,
    'printf bytes | ctr content ingest',
    'ctr content active | cut -f 1,2 | sort',
    "ctr content active '^wr' | cut -f 1,2",
    'D=sha256:$(printf bytes | sha256sum | cut -d " " -f 1); ctr content get $D',
    'printf \'#!/bin/sh\\nprintf edited >"$1"\\n\' >edit; chmod +x edit',
    'D=sha256:$(printf bytes | sha256sum | cut -d " " -f 1); ctr content edit --editor ./edit $D',
    'D=sha256:$(printf edited | sha256sum | cut -d " " -f 1); ctr content get $D',
    'for T in bytes edited; do ctr content rm sha256:$(printf $T | sha256sum | cut -d " " -f 1); done',
    `ctr content rm ${NO_DIGEST}`,
    'ctr content rm nothing',
    'ctr content ls',
  ],
});

/** Of each snapshotter. */
function snapshots({ manifest, chain: [bottom, top] }: SmallImage): readonly string[] {
  return [
    'ctr snapshots ls',
    'ctr snapshots tree',
    `ctr snapshots info ${top}`,
    'ctr snapshots info missing',
    `ctr snapshots usage ${top}`,
    `ctr snapshots usage -b ${top} ${bottom}`,
    'ctr snapshots usage missing',
    'ctr snapshots usage',
    `ctr snapshots prepare work ${top}`,
    `ctr snapshots prepare work ${top}`,
    'ctr snapshots prepare orphan missing',
    'ctr snapshots prepare below work',
    'ctr snapshots prepare empty',
    `ctr snapshots prepare --target /target aimed ${top}`,
    `ctr snapshots view seen ${top}`,
    `ctr snapshots view --target /target looked ${top}`,
    'ctr snapshots view nothing',
    'ctr snapshots mounts /target work',
    'ctr snapshots mounts /target seen',
    'ctr snapshots mounts /target empty',
    `ctr snapshots mounts /target ${top}`,
    'ctr snapshots mounts /target missing',
    'mkdir -p at',
    ...written('work', 'echo file >at/file; rm at/one; mkdir at/new; ln -s file at/link'),
    // Without the root, which ballast's layers have (docs/contract-notes.md).
    `ctr snapshots diff work | gzip -dc | tar -tv | sed -e 's/ [0-9-]* [0-9:]* / TIME /' ${NO_ROOT}`,
    `ctr snapshots diff ${top} | gzip -dc | tar -t | sed ${NO_ROOT}`,
    `ctr snapshots diff ${bottom} ${top} | gzip -dc | tar -t | sed ${NO_ROOT}`,
    `ctr snapshots diff --media-type application/vnd.oci.image.layer.v1.tar ${top} | tar -t | sed ${NO_ROOT}`,
    'ctr snapshots diff --media-type nonsense work',
    'ctr snapshots diff missing',
    // Of a type that was not made before: a blob that is there keeps its labels.
    'ctr snapshots diff --keep --label kept=yes --ref some-ref --media-type application/vnd.oci.image.layer.v1.tar work >layer; test -s layer',
    'ctr content ls -q labels.kept==yes | wc -l',
    'ctr content rm $(ctr content ls -q labels.kept==yes) | wc -l',
    'ctr snapshots commit done seen',
    'ctr snapshots commit done work',
    'ctr snapshots commit done work',
    'ctr snapshots commit other missing',
    'ctr snapshots usage done',
    'ctr snapshots label done x=y z=w',
    'ctr snapshots info done',
    'ctr snapshots label done x= z=',
    `ctr snapshots label done ${LONG}`,
    'ctr snapshots label missing x=y',
    'ctr snapshots ls',
    'ctr snapshots tree',
    `ctr snapshots rm ${top}`,
    'ctr snapshots rm seen done empty aimed looked',
    'ctr snapshots rm missing',
    'ctr snapshots rm',
    `ctr snapshots unpack ${manifest}`,
    `ctr snapshots rm ${top} ${bottom}`,
    `ctr snapshots unpack ${manifest}`,
    `ctr snapshots unpack ${NO_DIGEST}`,
    'ctr snapshots ls',
  ];
}

/** Mounts a snapshot as `ctr` says, and works in it. */
const written = (key: string, work: string): readonly string[] => [
  `ctr snapshots mounts $PWD/at ${key} | sh; ${work}; umount at`,
];

const mounts = ({ reference }: SmallImage, snapshotter: string): readonly string[] => {
  const mount = `ctr images mount --snapshotter ${snapshotter}`;
  const unmount = `ctr images unmount --snapshotter ${snapshotter}`;
  return [
    `${mount} ${reference} $PWD/at`,
    'ls at; cat at/two; touch at/x || echo read-only',
    'ctr leases ls -q',
    `ctr snapshots --snapshotter ${snapshotter} ls`,
    `${unmount} $PWD/at; ls at`,
    `${mount} ${reference} $PWD/at && ls at && ${unmount} --rm $PWD/at`,
    `${mount} --rw ${reference} $PWD/at && touch at/x && ls at`,
    `${unmount} --rm $PWD/at`,
    `ctr snapshots --snapshotter ${snapshotter} ls`,
    'ctr leases ls -q; ctr leases rm $PWD/at; true',
    `${mount} missing $PWD/at`,
    `${unmount} $PWD/at`,
    `ctr images usage --snapshotter ${snapshotter} ${reference}`,
    `ctr images check --snapshotter ${snapshotter}`,
  ];
};

const leases: Section = {
  what: 'leases',
  lines: [
    'ctr leases ls',
    'ctr leases create --id mine --expires 24h a=b',
    'ctr leases create --id mine',
    'ctr leases create --id forever --expires 0',
    'ctr leases create | wc -l',
    'ctr leases ls -q | wc -l',
    `ctr leases create --id long ${LONG}`,
    'ctr leases ls id==mine',
    'ctr leases ls id==forever',
    'ctr leases ls -q id==mine',
    'ctr leases ls -q labels.a==b',
    'ctr leases ls id==',
    'ctr leases rm mine forever',
    'ctr leases rm mine',
    'ctr leases rm $(ctr leases ls -q) | wc -l',
    'ctr leases ls -q',
  ],
};

const containers = ({ reference }: SmallImage): Section => ({
  what: 'containers',
  lines: [
    `ctr containers create ${reference} first`,
    `ctr containers create ${reference} first`,
    `ctr containers create --snapshotter native --label a=b --env X=y ${reference} second /bin/command x`,
    `ctr containers create --snapshotter btrfs ${reference} third`,
    'ctr containers create missing fourth',
    `ctr containers create ${reference} not/valid`,
    'ctr oci spec >spec.json && ctr containers create --config spec.json own',
    'ctr containers ls',
    'ctr containers ls -q',
    'ctr containers ls -q id==missing',
    'ctr containers ls -q labels.a==b',
    'ctr containers info first',
    'ctr containers info --spec second',
    'ctr containers info missing',
    'ctr containers label first a=b',
    `ctr containers label first ${LONG}`,
    'ctr containers label first a=',
    'ctr containers ls',
    ...['overlayfs', 'native', 'btrfs'].map((name) => `ctr snapshots --snapshotter ${name} ls`),
    'ctr containers rm missing',
    'ctr containers rm --keep-snapshot first',
    'ctr containers rm second third own',
    'ctr containers ls -q',
    ...['overlayfs', 'native', 'btrfs'].map((name) => `ctr snapshots --snapshotter ${name} ls`),
  ],
});

/** With collections, which both make before they answer. */
const removals = ({ reference }: SmallImage): Section => ({
  what: 'removals',
  lines: [
    'ctr content prune references --dry 2>&1 | sed "s/.*msg=//" | sort',
    'ctr content prune references',
    'ctr content ls',
    'ctr images ls',
    'ctr namespaces rm test',
    'ctr images prune --all',
    'ctr images ls -q',
    `ctr images rm --sync ${reference} example.org/a:1 example.org/b:1`,
    'ctr leases create --id sync && ctr leases rm --sync sync',
    'ctr content ls',
    ...['overlayfs', 'native', 'btrfs'].map((name) => `ctr snapshots --snapshotter ${name} ls`),
    'ctr namespaces ls',
  ],
});
