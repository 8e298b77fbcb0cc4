/** containerd's clients and servers allow this much both ways; writes come in messages of 8 MiB. */
export const MESSAGE_BYTES_MAX = 16 << 20;

/** As many infos per message of a list as containerd packs. */
export const INFOS_PER_MESSAGE = 100;

/**
 * Streams that one client may cancel, at once and per second, before nghttp2 takes it for an attack and
 * ends the connection. containerd cancels the stream of each ReadAt: exporting an image of 60 MB passes
 * the default of 1000 within a second. Whoever may connect is trusted, so this is as good as no limit.
 */
export const STREAM_RESETS_MAX = 1_000_000;
