import { open } from 'node:fs/promises';

/** Takes all room there is, down to the last block. */
export async function fill(path: string): Promise<void> {
  await using file = await open(path, 'w');
  for (let size = 1 << 20; size >= 4096;) {
    try {
      await file.write(Buffer.alloc(size, 1));
      await file.sync();
    } catch {
      size >>= 1;
    }
  }
}
