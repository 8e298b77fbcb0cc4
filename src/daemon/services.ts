import type { GrpcService } from '../grpc/server.ts';
import { contentService } from '../grpc/services/content.ts';
import { healthService } from '../grpc/services/health.ts';
import { introspectionService } from '../grpc/services/introspection.ts';
import { reflectionServices } from '../grpc/services/reflection.ts';
import { snapshotsService } from '../grpc/services/snapshots.ts';
import { versionService } from '../grpc/services/version.ts';
import type { Stores } from './compose.ts';
import type { DaemonConfig } from './config.ts';
