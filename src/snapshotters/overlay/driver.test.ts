import { expect, test } from 'vitest';
import { overlay } from './driver.ts';

test('rebase is claimed, unless overlay is to look for other marks than containerd writes', () => {
  expect(overlay.capabilities({ mount_options: ['volatile'] })).toContain('rebase');
  expect(overlay.capabilities({ mount_options: ['userxattr'] })).not.toContain('rebase');
});
