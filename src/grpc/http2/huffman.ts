import { HUFFMAN_BITS } from './hpack-tables.ts';

const END_OF_STRING = 256;

/**
 * A binary tree: NODES[2 * node + bit] is the next node, or, where negative, the symbol -1 - value; 0 is
 * the root, and nothing leads back to it.
 */
const NODES = makeTree();

function makeTree(): Int16Array {
  const nodes = new Int16Array(2 * END_OF_STRING + 2);
  const symbols = [...HUFFMAN_BITS.keys()].toSorted((a, b) => bitsOf(a) - bitsOf(b) || a - b);
  let count = 1;
  let code = 0;
  let length = 0;
  for (const symbol of symbols) {
    code *= 2 ** (bitsOf(symbol) - length);
    length = bitsOf(symbol);
    let node = 0;
    for (let bit = length - 1; bit > 0; bit--) {
      const at = 2 * node + ((code >>> bit) & 1);
      if (nodes[at] === 0) nodes[at] = count++;
      node = nodes[at] ?? 0;
    }
    nodes[2 * node + (code & 1)] = -1 - symbol;
    code++;
  }
  return nodes;
}

function bitsOf(symbol: number): number {
  return HUFFMAN_BITS[symbol] ?? 0;
}

/**
 * Text in RFC 7541's Huffman code, as Latin-1.
 * @returns undefined for an end of string inside, or padding that is more than 7 bits or not all ones
 */
export function decodeHuffman(bytes: Uint8Array): string | undefined {
  let text = '';
  let node = 0;
  /** Since the last symbol. */
  let bits = 0;
  let onlyOnes = true;
  for (const byte of bytes) {
    for (let shift = 7; shift >= 0; shift--) {
      const bit = (byte >>> shift) & 1;
      const next = NODES[2 * node + bit] ?? 0;
      if (next >= 0) {
        node = next;
        bits++;
        onlyOnes &&= bit === 1;
        continue;
      }
      const symbol = -1 - next;
      if (symbol === END_OF_STRING) return undefined;
      text += String.fromCharCode(symbol);
      node = 0;
      bits = 0;
      onlyOnes = true;
    }
  }
  return bits <= 7 && onlyOnes ? text : undefined;
}
