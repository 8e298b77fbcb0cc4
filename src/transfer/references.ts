import { OpError, quote } from '../base/errors.ts';

const COMPONENT = '[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*';
const PATH = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const DOMAIN_PART = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const DOMAIN = new RegExp(
  `^(?:${DOMAIN_PART}(?:\\.${DOMAIN_PART})*|\\[(?:[a-fA-F0-9:]+)\\])(?::[0-9]+)?$`,
);
const TAG = /^\w[\w.-]{0,127}$/;
const DIGEST = /^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/;
/** Characters of a domain and a path. */
const NAME_MAX = 255;

interface Reference {
  readonly domain: string;
  readonly path: string;
  readonly tag: string;
  readonly digest: string;
}

/**
 * A whole name for what Docker calls an image: `alpine` is `docker.io/library/alpine:latest`.
 * @throws OpError InvalidArgument
 * @see github.com/distribution/reference, "ParseDockerRef"
 */
export function normalizedReference(text: string): string {
  const { domain, path, tag, digest } = parse(text);
  const name = `${domain}/${path}`;
  return digest === '' ? `${name}:${tag === '' ? 'latest' : tag}` : `${name}@${digest}`;
}

/** What Docker calls an image with this whole name. @throws OpError InvalidArgument */
export function familiarReference(text: string): string {
  const { domain, path, tag, digest } = parse(text);
  const isOfficial = domain === 'docker.io' && /^library\/[^/]+$/.test(path);
  const familiar = isOfficial ? path.slice('library/'.length) : path;
  const name = domain === 'docker.io' ? familiar : `${domain}/${path}`;
  const given = tag === '' && digest === '' ? 'latest' : tag;
  return `${name}${given === '' ? '' : `:${given}`}${digest === '' ? '' : `@${digest}`}`;
}

/**
 * The part of a whole name that OCI takes for one: its tag or digest.
 * @see containerd, pkg/reference, "Parse"
 */
export function ociReferenceName(name: string): string {
  const [, host = '', path = ''] = /^([^/?#]*)([^?#]*)/.exec(name) ?? [];
  // What Go's URL parser refuses has no parts.
  if (!/^[^\s:@<>"^`{|}\\%]+(:\d*)?$/.test(host)) return name;
  const at = path.search(/[:@]/);
  if (at < 0) return '';
  return path[at] === ':' ? path.slice(at + 1) : path.slice(at);
}

function parse(text: string): Reference {
  const bad = (): OpError =>
    new OpError('InvalidArgument', `${quote(text)} is not a valid reference to an image`);
  if (/^[a-f0-9]{64}$/.test(text)) throw bad();
  const [whole = '', digest = ''] = splitAt(text, text.indexOf('@'));
  const colon = whole.lastIndexOf(':');
  const [name = '', tag = ''] = splitAt(whole, colon > whole.lastIndexOf('/') ? colon : -1);
  const { domain, path } = domainOf(name);
  const isValid =
    DOMAIN.test(domain) &&
    PATH.test(path) &&
    `${domain}/${path}`.length <= NAME_MAX &&
    (tag === '' ? !whole.endsWith(':') : TAG.test(tag)) &&
    (digest === '' ? !text.endsWith('@') : DIGEST.test(digest));
  if (!isValid) throw bad();
  return { domain, path, tag, digest };
}

const splitAt = (text: string, at: number): readonly string[] =>
  at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];

/** What is no domain is a path at Docker's own. */
function domainOf(name: string): { readonly domain: string; readonly path: string } {
  const [first = '', rest] = splitAt(name, name.indexOf('/'));
  const isDomain =
    rest !== undefined &&
    (/[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase());
  const domain = isDomain ? first : 'docker.io';
  const path = isDomain ? rest : name;
  if (domain !== 'docker.io' && domain !== 'index.docker.io') return { domain, path };
  return { domain: 'docker.io', path: path.includes('/') ? path : `library/${path}` };
}
