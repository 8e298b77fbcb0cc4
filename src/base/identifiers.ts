import type { RequestContext } from './context.ts';
import { OpError, quote } from './errors.ts';

/** Characters. */
const LENGTH_MAX = 76;

/**
 * Checks what containerd calls an identifier: the name of a namespace or a container, a part of a topic.
 * @throws OpError InvalidArgument
 * @see containerd, pkg/identifiers
 */
export function checkIdentifier(what: string, text: string): void {
  if (text !== '' && text.length <= LENGTH_MAX && /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/.test(text))
    return;
  const reason = text === '' ? 'must not be empty' : `is ${quote(text)}`;
  throw new OpError(
    'InvalidArgument',
    `${what} ${reason}: use letters, digits, and single ".", "_" or "-" between them, at most ${LENGTH_MAX} characters`,
  );
}

/**
 * The namespace that a request works in.
 * @throws OpError FailedPrecondition without one; InvalidArgument for a name that none can have
 */
export function requireNamespace({ namespace }: RequestContext): string {
  if (namespace === undefined || namespace === '') {
    throw new OpError(
      'FailedPrecondition',
      'namespace is required: name one in the header containerd-namespace',
    );
  }
  checkIdentifier('namespace', namespace);
  return namespace;
}
