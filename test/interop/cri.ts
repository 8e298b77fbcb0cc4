import { Client, credentials } from '@grpc/grpc-js';
import protobuf from 'protobufjs';

/**
 * What the tests use of Kubernetes' CRI v1 (k8s.io/cri-api, pkg/apis/runtime/v1/api.proto). Names of services,
 * methods and numbers of fields are its own; messages that look alike on the wire are one here.
 */
const PROTO = `
syntax = "proto3";
package runtime.v1;

service ImageService {
  rpc ListImages(Nothing) returns (Images);
  rpc ImageStatus(OfImage) returns (ImageStatus);
  rpc PullImage(OfImage) returns (ImageRef);
  rpc RemoveImage(OfImage) returns (Nothing);
  rpc ImageFsInfo(Nothing) returns (ImageFsInfo);
}

service RuntimeService {
  rpc RunPodSandbox(RunPodSandbox) returns (PodSandboxId);
  rpc StopPodSandbox(PodSandboxId) returns (Nothing);
  rpc RemovePodSandbox(PodSandboxId) returns (Nothing);
  rpc ListPodSandbox(Nothing) returns (PodSandboxes);
  rpc CreateContainer(CreateContainer) returns (ContainerId);
  rpc StartContainer(ContainerId) returns (Nothing);
  rpc StopContainer(ContainerId) returns (Nothing);
  rpc RemoveContainer(ContainerId) returns (Nothing);
  rpc ListContainers(Nothing) returns (Containers);
  rpc ExecSync(ExecSync) returns (Executed);
  rpc ContainerStats(ContainerId) returns (Stats);
  rpc ListContainerStats(Nothing) returns (AllStats);
}

message Nothing {}

message ImageSpec { string image = 1; }
message OfImage { ImageSpec image = 1; }
message ImageRef { string image_ref = 1; }
message Image {
  string id = 1;
  repeated string repo_tags = 2;
  repeated string repo_digests = 3;
  uint64 size = 4;
  bool pinned = 8;
}
message Images { repeated Image images = 1; }
message ImageStatus { Image image = 1; }

message UInt64Value { uint64 value = 1; }
message FilesystemIdentifier { string mountpoint = 1; }
message FilesystemUsage {
  int64 timestamp = 1;
  FilesystemIdentifier fs_id = 2;
  UInt64Value used_bytes = 3;
  UInt64Value inodes_used = 4;
}
message ImageFsInfo { repeated FilesystemUsage image_filesystems = 1; }

enum NamespaceMode { POD = 0; CONTAINER = 1; NODE = 2; }
message NamespaceOption { NamespaceMode network = 1; }

message PodSandboxId { string pod_sandbox_id = 1; }
message PodSandboxMetadata { string name = 1; string uid = 2; string namespace = 3; }
message LinuxSandboxSecurityContext { NamespaceOption namespace_options = 1; }
message LinuxPodSandboxConfig {
  string cgroup_parent = 1;
  LinuxSandboxSecurityContext security_context = 2;
}
message PodSandboxConfig { PodSandboxMetadata metadata = 1; LinuxPodSandboxConfig linux = 8; }
message RunPodSandbox { PodSandboxConfig config = 1; }
enum PodSandboxState { SANDBOX_READY = 0; SANDBOX_NOTREADY = 1; }
message PodSandbox { string id = 1; PodSandboxState state = 3; }
message PodSandboxes { repeated PodSandbox items = 1; }

message ContainerId { string container_id = 1; }
message ContainerMetadata { string name = 1; }
message ContainerConfig { ContainerMetadata metadata = 1; ImageSpec image = 2; repeated string command = 3; }
message CreateContainer {
  string pod_sandbox_id = 1;
  ContainerConfig config = 2;
  PodSandboxConfig sandbox_config = 3;
}
enum ContainerState {
  CONTAINER_CREATED = 0;
  CONTAINER_RUNNING = 1;
  CONTAINER_EXITED = 2;
  CONTAINER_UNKNOWN = 3;
}
message Container { string id = 1; string pod_sandbox_id = 2; string image_ref = 5; ContainerState state = 6; }
message Containers { repeated Container containers = 1; }

message ExecSync { string container_id = 1; repeated string cmd = 2; }
// The output is bytes there, which UTF-8 is too.
message Executed { string stdout = 1; string stderr = 2; int32 exit_code = 3; }

message ContainerAttributes { string id = 1; }
message ContainerStats { ContainerAttributes attributes = 1; FilesystemUsage writable_layer = 4; }
message Stats { ContainerStats stats = 1; }
message AllStats { repeated ContainerStats stats = 1; }
`;

const SERVICES = protobuf.parse(PROTO).root.resolveAll();
const DEADLINE_MS = 60_000;

/** Kubernetes' side of a containerd, as a kubelet calls it. */
export class Cri implements Disposable {
  readonly #client: Client;

  constructor(socket: string) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure());
  }

  images(method: string, request: object = {}): Promise<unknown> {
    return this.#call('runtime.v1.ImageService', method, request);
  }

  runtime(method: string, request: object = {}): Promise<unknown> {
    return this.#call('runtime.v1.RuntimeService', method, request);
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }

  #call(service: string, name: string, request: object): Promise<unknown> {
    const method = SERVICES.lookupService(service).methods[name];
    const [from, to] = [method?.resolvedRequestType, method?.resolvedResponseType];
    if (!from || !to) throw new Error(`${service} has no ${name} here`);
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        `/${service}/${name}`,
        (message: object) => Buffer.from(from.encode(from.fromObject(message)).finish()),
        (bytes) => to.toObject(to.decode(bytes), { longs: Number, enums: String, defaults: true }),
        request,
        { deadline: Date.now() + DEADLINE_MS },
        (error, answer) => (error === null ? resolve(answer) : reject(error)),
      );
    });
  }
}

/** What an answer holds at a place of it. */
export const at = (answer: unknown, ...place: readonly string[]): unknown =>
  place.reduce(
    (value, name) =>
      typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined,
    answer,
  );
