/** containerd's clients and servers allow this much both ways; writes come in messages of 8 MiB. */
export const MESSAGE_BYTES_MAX = 16 << 20;

/** As many infos per message of a list as containerd packs. */
export const INFOS_PER_MESSAGE = 100;
