/** RFC 9113, section 7. */
export const ERROR = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  streamClosed: 5,
  frameSize: 6,
  refusedStream: 7,
  cancel: 8,
  compression: 9,
  enhanceYourCalm: 11,
} as const;
export type ErrorNumber = (typeof ERROR)[keyof typeof ERROR];

/** The client broke HTTP/2's rules in a way that ends the connection. */
export class ConnectionError extends Error {
  readonly code: ErrorNumber;

  constructor(code: ErrorNumber, message: string) {
    super(message);
    this.code = code;
  }
}
