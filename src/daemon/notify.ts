import { type DatagramSender, openDatagramSender } from '../platform/linux/notify-socket.ts';

/** What a supervisor such as systemd hands over in the environment. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Tells the supervisor about the daemon's life; without one every method does nothing. Where it watches
 * us, the heartbeat starts at once: it beats in the event loop, so a loop that is stuck for as long as the
 * supervisor allows gets the daemon restarted. Disposing ends it. @see sd_notify(3)
 */
export class Notifier implements Disposable {
  readonly #sender: DatagramSender | undefined;
  readonly #heartbeat: NodeJS.Timeout | undefined;

  constructor(environment: Environment, pid: number = process.pid) {
    const { NOTIFY_SOCKET: address } = environment;
    if (address === undefined || !/^[/@]./.test(address)) return;
    const sender = openDatagramSender(address);
    this.#sender = sender;
    this.#heartbeat = startHeartbeat(sender, watchdogMs(environment, pid));
  }

  /** Whoever waits for us may start now. */
  ready(): void {
    this.#sender?.send('READY=1');
  }

  /** One line for `systemctl status`. */
  status(text: string): void {
    this.#sender?.send(`STATUS=${text.replaceAll('\n', ' ')}`);
  }

  stopping(): void {
    this.#sender?.send('STOPPING=1');
  }

  [Symbol.dispose](): void {
    clearInterval(this.#heartbeat);
    this.#sender?.[Symbol.dispose]();
  }
}

/** How long the supervisor waits for a sign of life; undefined when it watches nobody, or another. */
function watchdogMs(environment: Environment, pid: number): number | undefined {
  const { WATCHDOG_USEC: microseconds, WATCHDOG_PID: watched } = environment;
  if (watched !== undefined && watched !== String(pid)) return undefined;
  const ms = Number(microseconds) / 1000;
  return Number.isFinite(ms) && ms > 0 ? ms : undefined;
}

/** Twice within the time allowed, as sd_watchdog_enabled(3) advises. */
function startHeartbeat(sender: DatagramSender, ms: number | undefined) {
  if (ms === undefined) return undefined;
  return setInterval(() => sender.send('WATCHDOG=1'), Math.max(1, ms / 2)).unref();
}
