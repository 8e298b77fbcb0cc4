import { grpc } from '../gen/wire.js';
import { statusNumber } from '../status.ts';
import { bidi } from '../service.ts';
import type { Service } from '../service.ts';

const { ServerReflectionRequest, ServerReflectionResponse } = grpc.reflection.v1;

type Request = grpc.reflection.v1.ServerReflectionRequest.$Properties;
type Response = grpc.reflection.v1.ServerReflectionResponse.$Properties;

/**
 * Server reflection under its present and its former name; the messages of the two are the same.
 * @param services full names of all that is served beside reflection itself
 */
export function reflectionServices(services: readonly string[]): readonly Service[] {
  const names = ['grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection'];
  const listed = [...services, ...names];
  return names.map((name) => ({
    name,
    methods: {
      ServerReflectionInfo: bidi(
        ServerReflectionRequest,
        ServerReflectionResponse,
        (_ctx, requests) => reflect(listed, requests),
      ),
    },
  }));
}

async function* reflect(
  services: readonly string[],
  requests: AsyncIterable<Request>,
): AsyncIterable<Response> {
  const descriptors = new Descriptors((await import('../gen/descriptors.ts')).FILES);
  for await (const request of requests) {
    yield {
      validHost: request.host ?? '',
      originalRequest: request,
      ...answer(services, descriptors, request),
    };
  }
}

function answer(services: readonly string[], descriptors: Descriptors, request: Request): Response {
  if (typeof request.listServices === 'string') {
    return { listServicesResponse: { service: services.map((name) => ({ name })) } };
  }
  if (typeof request.fileByFilename === 'string') {
    return described(descriptors.file(request.fileByFilename), request.fileByFilename);
  }
  if (typeof request.fileContainingSymbol === 'string') {
    const { fileContainingSymbol: symbol } = request;
    return described(descriptors.fileOf(symbol), symbol);
  }
  if (typeof request.allExtensionNumbersOfType === 'string') {
    const { allExtensionNumbersOfType: type } = request;
    if (descriptors.fileOf(type).length === 0) return failed('NotFound', type);
    return { allExtensionNumbersResponse: { baseTypeName: type, extensionNumber: [] } };
  }
  // Nothing of ours can be extended.
  if (request.fileContainingExtension) {
    return failed('NotFound', request.fileContainingExtension.containingType ?? '');
  }
  return failed('InvalidArgument', 'the request');
}

const described = (files: readonly Uint8Array[], what: string): Response =>
  files.length === 0
    ? failed('NotFound', what)
    : { fileDescriptorResponse: { fileDescriptorProto: [...files] } };

const failed = (code: 'NotFound' | 'InvalidArgument', what: string): Response => ({
  errorResponse: {
    errorCode: statusNumber(code),
    errorMessage: `reflection: ${what} is not known`,
  },
});

interface FileEntry {
  readonly name: string;
  readonly dependencies: readonly string[];
  readonly symbols: readonly string[];
  readonly base64: string;
}

class Descriptors {
  readonly #byName = new Map<string, FileEntry>();
  readonly #bySymbol = new Map<string, FileEntry>();

  constructor(files: readonly FileEntry[]) {
    for (const file of files) {
      this.#byName.set(file.name, file);
      for (const symbol of file.symbols) this.#bySymbol.set(symbol, file);
    }
  }

  /** The file and all that it needs, itself first; empty if there is no such file. */
  file(name: string): readonly Uint8Array[] {
    const found = new Set<string>();
    const add = (each: string): void => {
      if (found.has(each) || !this.#byName.has(each)) return;
      found.add(each);
      this.#byName.get(each)?.dependencies.forEach(add);
    };
    add(name);
    return [...found].map((each) => Buffer.from(this.#byName.get(each)?.base64 ?? '', 'base64'));
  }

  fileOf(symbol: string): readonly Uint8Array[] {
    return this.file(this.#bySymbol.get(symbol)?.name ?? '');
  }
}
