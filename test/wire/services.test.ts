import protobuf from 'protobufjs';
import 'protobufjs/ext/descriptor.js';
import { expect, test } from 'vitest';
import { background } from '../../src/base/context.ts';
import { OpError } from '../../src/base/errors.ts';
import { grpc } from '../../src/grpc/gen/wire.js';
import { Calls } from '../../src/grpc/proxy/calls.ts';
import { connect } from '../../src/grpc/proxy/connect.ts';
import { Health, healthService } from '../../src/grpc/services/health.ts';
import { introspectionService } from '../../src/grpc/services/introspection.ts';
import { reflectionServices } from '../../src/grpc/services/reflection.ts';
import { versionService } from '../../src/grpc/services/version.ts';
import { serveAll } from '../support/served.ts';

const SNAPSHOTS = 'containerd.services.snapshots.v1.Snapshots';

test('the version is that of the daemon', async () => {
  await using served = await serveAll([versionService({ version: '1.2.3', revision: 'abc' })]);
  await using daemon = connect(served.socketPath);
  expect(await daemon.version(background)).toEqual({ version: '1.2.3', revision: 'abc' });
});

test('introspection names the parts, their capabilities, and why one is not available', async () => {
  const overlay = {
    type: 'io.containerd.snapshotter.v1',
    id: 'ballast-overlay',
    capabilities: ['remap-ids'],
    exports: new Map([['root', '/var/lib/ballast']]),
  };
  const native = { ...overlay, id: 'ballast-native', capabilities: [] };
  await using served = await serveAll([
    introspectionService({
      uuid: '5f0c',
      plugins: () => [
        { ...overlay, isOfPlatform: true, error: undefined },
        {
          ...native,
          isOfPlatform: true,
          error: new OpError('FailedPrecondition', 'root is read-only'),
        },
      ],
    }),
  ]);
  await using daemon = connect(served.socketPath);
  expect(await daemon.server(background)).toEqual({ uuid: '5f0c', pid: process.pid });
  expect(await daemon.plugins(background, [])).toEqual([
    { ...overlay, error: '' },
    { ...native, error: 'root is read-only' },
  ]);
  expect(
    (await daemon.plugins(background, ['type~=snapshotter,id==ballast-native'])).map(
      ({ id }) => id,
    ),
  ).toEqual(['ballast-native']);
  await expect(daemon.plugins(background, ['id=='])).rejects.toMatchObject({
    code: 'InvalidArgument',
  });
});

test('health is that of the daemon and of each service; watching shows each change', async () => {
  const health = new Health([SNAPSHOTS]);
  await using served = await serveAll([healthService(health)]);
  await using daemon = connect(served.socketPath);
  expect(await daemon.serving(background)).toBe(true);
  expect(await daemon.serving(background, SNAPSHOTS)).toBe(true);
  await expect(daemon.serving(background, 'none')).rejects.toMatchObject({ code: 'NotFound' });

  using calls = new Calls(served.socketPath);
  const { HealthCheckRequest: request, HealthCheckResponse: response } = grpc.health.v1;
  const watch = { path: '/grpc.health.v1.Health/Watch', request, response };
  const seen: number[] = [];
  for await (const { status } of calls.serverStream(background, watch, { service: '' })) {
    seen.push(status);
    if (seen.length === 1) health.set('notServing');
    if (seen.length === 2) health.set('serving');
    if (seen.length === 3) break;
  }
  const { SERVING, NOT_SERVING } = response.ServingStatus;
  expect(seen).toEqual([SERVING, NOT_SERVING, SERVING]);
  health.set('notServing');
  expect(await daemon.serving(background)).toBe(false);
});

test.each(['v1', 'v1alpha'] as const)('reflection %s lists and describes', async (version) => {
  await using served = await serveAll(reflectionServices([SNAPSHOTS]));
  using calls = new Calls(served.socketPath);
  const { ServerReflectionRequest: request, ServerReflectionResponse: response } =
    grpc.reflection[version];
  const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`;
  const exchange = calls.bidi(background, { path, request, response });

  const { listServicesResponse } = await exchange.send({ listServices: '' });
  expect(listServicesResponse?.service?.map(({ name }) => name)).toEqual([
    SNAPSHOTS,
    'grpc.reflection.v1.ServerReflection',
    'grpc.reflection.v1alpha.ServerReflection',
  ]);

  for (const fileContainingSymbol of [
    SNAPSHOTS,
    `${SNAPSHOTS}.Stat`,
    `${SNAPSHOTS.slice(0, -9)}Info`,
  ]) {
    const { fileDescriptorResponse } = await exchange.send({ fileContainingSymbol });
    const root = rootOf(fileDescriptorResponse?.fileDescriptorProto ?? []);
    expect(Object.keys(root.lookupService(SNAPSHOTS).methods)).toHaveLength(10);
    expect(root.lookupType('containerd.types.Mount').fields).toHaveProperty('options');
  }
  const { fileDescriptorResponse: ours } = await exchange.send({
    fileContainingSymbol: 'ballast.v1.GC.Why',
  });
  const { methods } = rootOf(ours?.fileDescriptorProto ?? []).lookupService('ballast.v1.GC');
  expect(Object.keys(methods)).toEqual(['Why', 'Plan', 'Run']);
  for (const unknown of [
    { fileContainingSymbol: 'none' },
    { fileByFilename: '__proto__' },
    { fileContainingExtension: { containingType: SNAPSHOTS, extensionNumber: 1 } },
  ]) {
    expect((await exchange.send(unknown)).errorResponse).toMatchObject({ errorCode: 5 });
  }
  await exchange.finish();
});

/** Field 1 of google.protobuf.FileDescriptorSet, once per file. */
function rootOf(files: readonly Uint8Array[]): protobuf.Root {
  const writer = protobuf.Writer.create();
  for (const file of files) writer.uint32(10).bytes(file);
  const root = protobuf.Root.fromDescriptor(writer.finish());
  root.resolveAll();
  return root;
}
