import { OpError } from '../../base/errors.ts';
import type { Namespace, NamespaceStore } from '../../namespaces/namespace.ts';
import { labelsFromWire, labelsToWire } from '../convert/labels.ts';
import { containerd, google } from '../gen/wire.js';
import { unary } from '../service.ts';
import type { Service } from '../service.ts';

const v1 = containerd.services.namespaces.v1;
type WireNamespace = containerd.services.namespaces.v1.Namespace.$Properties;

export function namespacesService(namespaces: NamespaceStore): Service {
  return {
    name: 'containerd.services.namespaces.v1.Namespaces',
    methods: {
      Get: unary(v1.GetNamespaceRequest, v1.GetNamespaceResponse, async (ctx, { name }) => ({
        namespace: toWire(await namespaces.get(ctx, name)),
      })),
      List: unary(v1.ListNamespacesRequest, v1.ListNamespacesResponse, async (ctx) => ({
        namespaces: (await namespaces.list(ctx)).map(toWire),
      })),
      Create: unary(
        v1.CreateNamespaceRequest,
        v1.CreateNamespaceResponse,
        async (ctx, { namespace }) => ({
          namespace: toWire(await namespaces.create(ctx, fromWire(namespace))),
        }),
      ),
      Update: unary(
        v1.UpdateNamespaceRequest,
        v1.UpdateNamespaceResponse,
        async (ctx, { namespace, updateMask }) => ({
          namespace: toWire(
            await namespaces.update(ctx, fromWire(namespace), updateMask?.paths ?? []),
          ),
        }),
      ),
      Delete: unary(v1.DeleteNamespaceRequest, google.protobuf.Empty, async (ctx, { name }) => {
        await namespaces.delete(ctx, name);
        return {};
      }),
    },
  };
}

const toWire = ({ name, labels }: Namespace): WireNamespace => ({
  name,
  labels: labelsToWire(labels),
});

/** @throws OpError InvalidArgument without a namespace */
function fromWire(namespace: WireNamespace | null | undefined): Namespace {
  if (!namespace) throw new OpError('InvalidArgument', 'the request has no namespace');
  return { name: namespace.name ?? '', labels: labelsFromWire(namespace.labels ?? {}) };
}
