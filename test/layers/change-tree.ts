import {
  chmod,
  chown,
  link,
  lutimes,
  mkdir,
  rename,
  rm,
  symlink,
  unlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { cstring } from '../../src/platform/linux/files.ts';
import { setxattr } from '../../src/platform/linux/xattr.ts';
import { run } from '../support/run.ts';

/** Which permitted capability CAP_NET_RAW is; struct vfs_ns_cap_data of linux/capability.h, revision 2. */
const CAPABILITY = Buffer.from('0100000200200000000000000000000000000000', 'hex');
/** One more user with rwx. struct posix_acl_xattr_header of linux/posix_acl_xattr.h */
const ACL = Buffer.from(
  '0200000001000600ffffffff02000700d204000004000400ffffffff10000700ffffffff20000400ffffffff',
  'hex',
);

function set(path: string, name: string, value: Buffer): void {
  const errno = setxattr(cstring(path), cstring(name), value);
  if (errno !== 0) throw new Error(`${path}: ${name}: errno ${errno}`);
}

/** Bytes that are no UTF-8 below a root. */
const raw = (root: string, name: string): Buffer =>
  Buffer.concat([Buffer.from(`${root}/`), Buffer.from(name, 'latin1')]);

/** A tree with something of every type. */
export async function makeTree(root: string): Promise<void> {
  const at = (name: string): string => join(root, name);
  for (const directory of ['etc', 'gone', 'gone/below', 'kept', 'kept/deep', 'opaque', 'links']) {
    await mkdir(at(directory));
  }
  for (const file of ['etc/a', 'etc/b', 'etc/touched', 'gone/below/f', 'kept/deep/f', 'opaque/f']) {
    await writeFile(at(file), file);
  }
  await writeFile(at('to-directory'), 'file');
  await mkdir(at('to-file'));
  await writeFile(at('to-file/f'), 'below');
  await symlink('etc/a', at('to-fifo'));
  await symlink('etc/a', at('symlink'));
  await writeFile(at('links/first'), 'linked');
  await link(at('links/first'), at('links/second'));
  await link(at('links/first'), at('kept/third'));
  await writeFile(raw(root, 'old-\xff\xfe'), 'bytes');
  await writeFile(at('same-size'), 'aaaa');
  await utimes(at('same-size'), 1_600_000_000, 1_600_000_000);
  await chmod(root, 0o751);
}

/** Changes of every kind to it. */
export async function changeTree(root: string): Promise<void> {
  const at = (name: string): string => join(root, name);
  await writeFile(at('etc/a'), 'changed');
  await writeFile(at('etc/new'), 'x'.repeat(300_000));
  await unlink(at('etc/b'));
  await utimes(at('etc/touched'), 1_500_000_000.25, 1_500_000_000.25);
  await rm(at('gone'), { recursive: true });
  await rm(at('opaque'), { recursive: true });
  await mkdir(at('opaque'), 0o700);
  await writeFile(at('opaque/other'), 'new');
  await rm(at('to-directory'));
  await mkdir(at('to-directory'));
  await writeFile(at('to-directory/f'), '');
  await rm(at('to-file'), { recursive: true });
  await writeFile(at('to-file'), 'now a file');
  await unlink(at('to-fifo'));
  await run('mkfifo', ['-m', '640', at('to-fifo')]);
  await link(at('links/first'), at('links/fourth'));
  await writeFile(at('same-size'), 'bbbb');
  await utimes(at('same-size'), 1_600_000_000, 1_600_000_000);
  await changeNames(root);
  await changeAttributes(root);
}

async function changeNames(root: string): Promise<void> {
  const at = (name: string): string => join(root, name);
  await unlink(raw(root, 'old-\xff\xfe'));
  await writeFile(raw(root, 'new-\xe9\x80\n\\'), 'bytes');
  await symlink(Buffer.from('target-\xff', 'latin1'), raw(root, 'link-\xff'));
  await writeFile(at('ünï'), 'UTF-8');
  const long = `${'long-name-'.repeat(20)}/`.repeat(3);
  await mkdir(at(long), { recursive: true });
  await writeFile(join(at(long), 'file'), 'deep');
  await symlink(`${'t/'.repeat(400)}x`, at('long-target'));
  await link(join(at(long), 'file'), at('long-linked'));
}

async function changeAttributes(root: string): Promise<void> {
  const at = (name: string): string => join(root, name);
  await writeFile(at('setuid'), 'suid');
  await chown(at('setuid'), 2 ** 31, 3_000_000_000);
  await chmod(at('setuid'), 0o6755);
  set(at('setuid'), 'security.capability', CAPABILITY);
  set(at('setuid'), 'user.binary', Buffer.from([0, 1, 10, 61, 255]));
  set(at('setuid'), 'user.empty', Buffer.alloc(0));
  set(at('kept/deep'), 'system.posix_acl_access', ACL);
  set(at('kept/deep'), 'user.directory', Buffer.from('d'));
  set(at('kept/deep/f'), 'trusted.hidden', Buffer.from('t'));
  await mkdir(at('sticky'));
  await chmod(at('sticky'), 0o3777);
  await writeFile(at('mode-0'), '');
  await chmod(at('mode-0'), 0);
  await run('mknod', ['-m', '600', at('null'), 'c', '1', '3']);
  await run('mknod', ['-m', '640', at('disk'), 'b', '4095', '1048575']);
  await lutimes(at('symlink'), 5_000_000_000.5, 5_000_000_000.5);
  await utimes(at('mode-0'), -1.5, -1.5);
  await rename(at('kept/third'), at('kept/renamed'));
  await makeSocket(at('socket'));
  await run('truncate', ['-s', '40M', at('sparse')]);
  await run('sh', [
    '-c',
    'for at in 0 30; do printf data | dd of="$1" bs=1M seek=$at conv=notrunc status=none; done',
    '',
    at('sparse'),
  ]);
}

/** A name for one, which nobody listens at afterwards. */
async function makeSocket(path: string): Promise<void> {
  await run('python3', [
    '-c',
    'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])',
    path,
  ]);
}
